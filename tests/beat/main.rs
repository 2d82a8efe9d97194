//! Beat: the crontab against Python Celery's, and periodic tasks that run.

mod conformance;
mod control;
mod declared;
mod election;
mod firing;
mod kit;
mod overlap;
mod refusal;
mod tenants;
