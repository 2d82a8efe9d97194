//! Beat: the crontab against Python Celery's, and periodic tasks that run.

mod conformance;
