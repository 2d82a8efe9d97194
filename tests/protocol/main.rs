//! Celery's protocol against what real Celery 5.7 clients and workers sent (`captures/`), and against everything else.

mod any_bytes;
mod any_message;
mod captures;
mod control;
mod extremes;
mod golden;
mod peers;
mod refused;
mod results;
mod traces;
