//! The page that Prometheus scrapes.

use actix_web::dev::HttpServiceFactory;
use actix_web::http::header;
use actix_web::{HttpResponse, web};
use prometheus_client::encoding::prometheus_text::CONTENT_TYPE;

use crate::Celeriac;

/// The route `GET /metrics`, with [all metrics](Celeriac::metrics_text) in the text format of Prometheus. Mount it beside the
/// program's own: `App::new().service(metrics(&celeriac))`.
///
/// Nobody is asked who he is, and the answer has the names of tasks and queues: keep the route from strangers, for instance on
/// a port of its own. A program that has metrics of its own adds Celeriac's to them with [`Celeriac::register`].
pub fn metrics(celeriac: &Celeriac) -> impl HttpServiceFactory + use<> {
    web::resource("/metrics").app_data(web::Data::new(celeriac.clone())).route(web::get().to(scrape))
}

async fn scrape(celeriac: web::Data<Celeriac>) -> HttpResponse {
    HttpResponse::Ok()
        .content_type(CONTENT_TYPE)
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .body(celeriac.metrics_text().await)
}
