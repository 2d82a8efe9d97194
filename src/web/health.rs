//! Probes for whoever looks after the program: a container's orchestrator, a load balancer, an alarm.

use actix_web::dev::HttpServiceFactory;
use actix_web::http::header;
use actix_web::{HttpResponse, Resource, web};
use serde_json::json;

use crate::Celeriac;

/// The routes of the program's health, at `/health`. Mount them beside the program's own:
/// `App::new().service(health(&celeriac))`.
///
/// | route | answers |
/// |---|---|
/// | `GET /health/live` | 200 as long as the server answers, also while the broker is away or a shutdown goes on: a program that is killed for that crashes the tasks that it runs |
/// | `GET /health/ready`, `GET /health` | 200, or 503 if a trouble is critical; the [health](crate::app::Health) as JSON in both cases: each trouble with its severity, the reason, and what to do |
///
/// The queues have a second to answer, and the broker has five: give a probe seven seconds. Nobody is asked who he is, and the
/// answers have names of queues: keep the routes from strangers.
///
/// ```no_run
/// use actix_web::{App, HttpServer};
/// use celeriac::Celeriac;
/// use celeriac::web::health;
///
/// #[actix_web::main]
/// async fn main() -> Result<(), Box<dyn std::error::Error>> {
///     let celeriac = Celeriac::builder().directory("data").start().await?;
///     let server = HttpServer::new({
///         let celeriac = celeriac.clone();
///         move || App::new().service(health(&celeriac))
///     });
///     let server = server.disable_signals().bind(("127.0.0.1", 8080))?.run();
///     celeriac::web::run(server, &celeriac).await?;
///     Ok(())
/// }
/// ```
pub fn health(celeriac: &Celeriac) -> impl HttpServiceFactory + use<> {
    let ready_at = |path: &str| Resource::new(path).route(web::get().to(ready)).route(web::head().to(ready));
    web::scope("/health")
        .app_data(web::Data::new(celeriac.clone()))
        .service(Resource::new("/live").route(web::get().to(live)).route(web::head().to(live)))
        .service(ready_at("/ready"))
        .service(ready_at(""))
}

async fn live() -> HttpResponse {
    HttpResponse::Ok().insert_header((header::CACHE_CONTROL, "no-store")).json(json!({ "live": true }))
}

async fn ready(celeriac: web::Data<Celeriac>) -> HttpResponse {
    let health = celeriac.health().await;
    let mut response =
        if health.is_ready() { HttpResponse::Ok() } else { HttpResponse::ServiceUnavailable() };
    response.insert_header((header::CACHE_CONTROL, "no-store")).json(health)
}
