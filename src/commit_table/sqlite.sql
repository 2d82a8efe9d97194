-- Calls that become tasks when the transaction that wrote them commits. Celeriac forwards the rows to its broker, oldest
-- first, and deletes them. A row that it cannot forward stays, and `refused` says why.
CREATE TABLE IF NOT EXISTS celeriac_on_commit (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    task TEXT NOT NULL,
    call TEXT NOT NULL,
    refused TEXT
);
