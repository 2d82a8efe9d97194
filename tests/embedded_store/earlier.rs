//! Stores of the earlier layout, which had no log.

use std::path::Path;

use celeriac::broker::embedded::flush_log;

const TABLES: [&str; 6] = ["messages", "tasks", "dead", "expiries", "meta", "lanes"];

/// Makes of a store one of the earlier layout, which wrote each commit to the database's journal: all rows are there.
pub fn make_earlier(dir: &Path) {
    flush_log(dir).unwrap();
    let db = fjall::Database::builder(dir.join("db"))
        .journal_compression(fjall::CompressionType::None)
        .open()
        .unwrap();
    let tables = TABLES.map(|table| db.keyspace(table, fjall::KeyspaceCreateOptions::default).unwrap());
    for (name, table) in TABLES.iter().zip(&tables).filter(|(name, _)| **name != "meta") {
        for row in table.iter() {
            let (key, value) = row.into_inner().unwrap();
            table.insert(key, value).unwrap_or_else(|error| panic!("{name}: {error}"));
        }
    }
    let meta = &tables[4];
    meta.remove("log").unwrap();
    for row in meta.iter() {
        let (key, value) = row.into_inner().unwrap();
        meta.insert(key, value).unwrap();
    }
    db.persist(fjall::PersistMode::SyncAll).unwrap();
    drop((tables, db));
    std::fs::remove_dir_all(dir.join("db/log")).unwrap();
    std::fs::write(dir.join("layout"), "celeriac store, layout 2\n").unwrap();
}
