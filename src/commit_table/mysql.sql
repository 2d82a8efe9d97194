-- Calls that become tasks when the transaction that wrote them commits. Celeriac forwards the rows to its broker, oldest
-- first, and deletes them. A row that it cannot forward stays, and `refused` says why.
CREATE TABLE IF NOT EXISTS celeriac_on_commit (
    number BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY,
    id VARCHAR(255) NOT NULL UNIQUE,
    task TEXT NOT NULL,
    `call` LONGTEXT NOT NULL,
    refused TEXT
) ENGINE = InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
