//! The book: what each order's mail came to, and everything in it that breaks the promise.

use std::collections::{BTreeMap, BTreeSet};

use crate::ledger::{Line, Reader};

/// The mail of one order.
#[derive(Debug, Default)]
struct Mail {
    /// The tasks that sent it.
    ids: BTreeSet<String>,
    /// How often it began without being told that it may have begun before.
    begun: u32,
    /// How often it began after that.
    again: u32,
}

#[derive(Default)]
pub struct Book {
    /// Orders whose commit returned.
    pub committed: BTreeSet<i64>,
    mails: BTreeMap<i64, Mail>,
}

impl Book {
    /// Enters what the ledger has new.
    pub fn read(&mut self, reader: &mut Reader) {
        for line in reader.lines() {
            match line {
                Line::Committed { n } => {
                    self.committed.insert(n);
                }
                Line::Mail { n, id, again } => {
                    let mail = self.mails.entry(n).or_default();
                    mail.ids.insert(id);
                    *(if again { &mut mail.again } else { &mut mail.begun }) += 1;
                }
            }
        }
    }

    /// How many of these orders have no mail yet.
    pub fn missing(&self, orders: &BTreeSet<i64>) -> usize {
        orders.iter().filter(|n| !self.mails.contains_key(n)).count()
    }

    /// Compares everything with the orders that are in the database in the end, and panics with what was broken.
    pub fn close(&self, orders: &BTreeSet<i64>) {
        let mut broken = Vec::new();
        for n in self.committed.difference(orders) {
            broken.push(format!("order {n} was committed and is not in the database"));
        }
        for (n, mail) in &self.mails {
            if !orders.contains(n) {
                broken.push(format!("order {n} was never committed, and has a mail: {mail:?}"));
            }
            if mail.ids.len() > 1 {
                broken.push(format!("order {n} has more than one task: {mail:?}"));
            }
            if mail.begun > 1 {
                broken.push(format!("the mail of order {n} was forwarded twice: {mail:?}"));
            }
        }
        let lost = orders.iter().filter(|n| !self.mails.contains_key(n));
        broken.extend(lost.map(|n| format!("order {n} was committed, and its mail is lost")));
        let again: u32 = self.mails.values().map(|mail| mail.again).sum();
        println!(
            "    {} orders, {} mails, {again} runs that a kill had cut short",
            orders.len(),
            self.mails.len()
        );
        let shown: Vec<_> = broken.iter().take(20).map(String::as_str).collect();
        assert!(broken.is_empty(), "{} promises broken:\n  {}", broken.len(), shown.join("\n  "));
    }
}
