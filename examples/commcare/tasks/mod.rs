//! The tasks, a module for each app of HQ that has a `tasks.py`. Each of the catalogue's 24 queues has one at least.

pub mod accounting;
pub mod analytics;
pub mod async_restore;
pub mod case_importer;
pub mod data_interfaces;
pub mod domain;
pub mod email;
pub mod export;
pub mod icds;
pub mod locations;
pub mod logistics;
pub mod outgoing;
pub mod ready;
pub mod receiverwrapper;
pub mod reminders;
pub mod reports;
pub mod sms;
pub mod sumologic;
pub mod ucr;
