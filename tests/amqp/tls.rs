//! RabbitMQ and Redis over TLS, with an authority of one's own.

use celeriac::Celeriac;
use celeriac::broker::Broker;
use celeriac::broker::amqp::{AmqpBroker, AmqpOptions};
use celeriac::store::{RedisOptions, RedisStore};
use celeriac::task::Task;

use crate::kit::{LONG, add};
use crate::services::{
    Authority, RabbitMq, RabbitMqOptions, Redis, RedisOptions as Server, blocking, free_port,
};

struct Servers {
    authority: Authority,
    amqps: String,
    rediss: String,
    redis: Redis,
    _rabbitmq: RabbitMq,
}

fn start() -> Servers {
    let authority = Authority::new();
    let (amqps, rediss) = (free_port(), free_port());
    let files = [authority.file(), authority.certificate(), authority.key()];
    let [ca, certificate, key] = files.map(|file| file.display().to_string());
    let rabbitmq = RabbitMqOptions::new()
        .config(&format!("listeners.ssl.1 = 127.0.0.1:{amqps}"))
        .config(&format!("ssl_options.cacertfile = {ca}"))
        .config(&format!("ssl_options.certfile = {certificate}"))
        .config(&format!("ssl_options.keyfile = {key}"))
        .config("ssl_options.verify = verify_none")
        .config("ssl_options.fail_if_no_peer_cert = false");
    let redis = Server::new()
        .setting("tls-port", &rediss.to_string())
        .setting("tls-ca-cert-file", &ca)
        .setting("tls-cert-file", &certificate)
        .setting("tls-key-file", &key)
        .setting("tls-auth-clients", "no");
    Servers {
        authority,
        amqps: format!("amqps://guest:guest@localhost:{amqps}/%2f"),
        rediss: format!("rediss://localhost:{rediss}/0"),
        redis: redis.start(),
        _rabbitmq: rabbitmq.start(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tasks_and_results_go_by_tls() {
    let servers = blocking(start).await;
    let builder = || crate::kit::builder().amqp(servers.amqps.clone()).ca_certs(servers.authority.file());
    let runs = async |celeriac: Celeriac| {
        let sum = add::s(2, 3).send(celeriac.client()).await.unwrap();
        assert_eq!(sum.get(LONG).await, Ok(5));
        celeriac.shutdown().await.unwrap();
        sum.id().to_string()
    };
    let id = runs(builder().result_backend(servers.rediss.clone()).start().await.unwrap()).await;
    let redis = servers.redis.clone();
    let document = blocking(move || redis.cli(&["GET", &format!("celery-task-meta-{id}")])).await;
    assert!(document.contains("SUCCESS") && document.contains(add::Task::NAME), "{document}");
    runs(builder().result_backend("rpc://").start().await.unwrap()).await;

    // redis-py's parameter in the address.
    let file = servers.authority.file().display().to_string().replace('/', "%2F");
    let address = format!("{}?ssl_cert_reqs=required&ssl_ca_certs={file}", servers.rediss);
    assert!(RedisStore::connect(&address, RedisOptions::default()).await.is_ok());
    // Of the broker alone.
    let own = AmqpOptions::default().with_ca_certs(servers.authority.file());
    AmqpBroker::connect(&servers.amqps, own).await.unwrap().close().await.unwrap();

    // Who is not known is not talked to.
    let other = blocking(Authority::new).await;
    let mut impatient = RedisOptions::default();
    impatient.patience = std::time::Duration::from_millis(300);
    for ca in [None, Some(other.file())] {
        let mut stranger = crate::kit::builder().amqp(servers.amqps.clone());
        if let Some(ca) = &ca {
            stranger = stranger.ca_certs(ca);
        }
        let error = stranger.start().await.err().expect("an unknown authority").to_string();
        assert!(error.contains("certificate") && error.contains("by TLS"), "{error}");
        impatient.ca_certs = ca;
        let refused = RedisStore::connect(&servers.rediss, impatient.clone()).await;
        let error = refused.err().expect("an unknown authority").to_string();
        assert!(error.contains("certificate"), "{error}");
    }
}
