//! What a pool keeps so that it need not search: it agrees with what a search through all finds.

use std::time::Duration;

use super::super::contenders::LineTotals;
use super::super::line::LinePlace;
use super::super::queue::PooledQueue;
use super::super::tenant::Shelf;
use super::super::{QueueTerms, SlotRules, Slots, TenantWeight, WaitingTask};
use crate::core::Timestamp;

/// Says what does not agree.
pub(super) fn agree(slots: &Slots) -> Result<(), String> {
    for (number, queue) in slots.queues.iter().enumerate() {
        if queue.contending != contending(queue).count() {
            return Err(format!("queue {number} counts {} lines", queue.contending));
        }
        contests_agree(queue)?;
    }
    let lines = slots.queues.iter().map(|queue| queue.contending).sum::<usize>();
    let known = slots.tenants.contenders.lines();
    if known != lines {
        return Err(format!("{known} lines contend instead of {lines}"));
    }
    lists_agree(slots)?;
    shelves_agree(slots)?;
    contenders_agree(slots)?;
    sums_agree(slots)?;
    for account in slots.tenants.all() {
        let number = slots.tenants.find(&account.name).expect("it has an account");
        let of = slots.runs.values().filter(|run| run.tenant == number);
        let charged: u128 = of.map(|run| run.charge).sum();
        if account.held != charged {
            return Err(format!("{account:?} is charged {charged}"));
        }
    }
    Ok(())
}

/// The lines of a queue that contend, by tenant.
fn contending(queue: &PooledQueue) -> impl Iterator<Item = (usize, LinePlace)> {
    queue.lines.iter().filter_map(|(tenant, line)| Some((*tenant, line.place?)))
}

/// The sums and the first entries of the contests of a queue.
fn contests_agree(queue: &PooledQueue) -> Result<(), String> {
    let mut looked = queue.clone();
    looked.look();
    let places: Vec<LinePlace> = contending(queue).map(|(_, place)| place).collect();
    for (number, contest) in looked.contests.iter_mut().enumerate() {
        let here = || places.iter().filter(|place| place.blocks == number);
        let told = || here().filter_map(|place| Some((place.told?, place)));
        let weight = |place: &LinePlace| u128::from(place.weight);
        let least = contest.least(number, &looked.lines);
        let known = (contest.first(), least, contest.sums(), contest.is_empty());
        let sums = (
            told().map(|(_, place)| weight(place)).sum::<u128>(),
            told().map(|(spent, place)| spent * weight(place)).sum::<u128>(),
        );
        let found = (
            here().filter(|place| place.is_owed).map(|place| place.head).min(),
            told().map(|(spent, place)| (spent, place.head.tenant)).min(),
            sums,
            here().next().is_none(),
        );
        if known != found {
            return Err(format!("contest {number}: {known:?} instead of {found:?}"));
        }
    }
    Ok(())
}

/// The queues in which lines contend, and those in which the rule of room keeps a tenant from starting more.
fn lists_agree(slots: &Slots) -> Result<(), String> {
    let mut listed = slots.contested.clone();
    listed.sort_unstable();
    for (number, queue) in slots.queues.iter().enumerate() {
        let times = listed.iter().filter(|listed| **listed == number).count();
        if times != usize::from(queue.is_contested) || (queue.contending > 0 && times == 0) {
            return Err(format!("{} lines of queue {number} contend, of {listed:?}", queue.contending));
        }
    }
    for (tenant, account) in slots.tenants.accounts.iter().enumerate() {
        let is_kept = |queue: &PooledQueue| queue.is_open && queue.lines.contains_key(&tenant);
        let kept = slots.queues.iter().enumerate().filter(|(_, queue)| account.is_crowding && is_kept(queue));
        let kept: Vec<usize> = kept.map(|(number, _)| number).collect();
        let is_parked = kept.iter().all(|number| account.parked.contains(number));
        if !is_parked || !account.parked.is_sorted() || (!account.is_crowding && !account.parked.is_empty()) {
            return Err(format!("{account:?} is kept from starting more in {kept:?}"));
        }
    }
    Ok(())
}

/// The first tenants that are not owed, and that are too far ahead.
fn shelves_agree(slots: &Slots) -> Result<(), String> {
    let mut book = slots.tenants.clone();
    let shelves = || slots.tenants.accounts.iter().map(|account| account.shelf).zip(0_usize..);
    let unowed = shelves().filter_map(|(shelf, number)| match shelf {
        Shelf::Unowed(spent) => Some((spent, number)),
        _ => None,
    });
    let ahead = shelves().filter_map(|(shelf, number)| match shelf {
        Shelf::Ahead(key) => Some((key, number)),
        _ => None,
    });
    let (known, found) = ((book.first_unowed(), book.first_ahead()), (unowed.min(), ahead.min()));
    if known == found { Ok(()) } else { Err(format!("{known:?} instead of {found:?}")) }
}

/// All lines that contend, taken together, and the contests, once they are told.
fn contenders_agree(slots: &Slots) -> Result<(), String> {
    let mut slots = slots.clone();
    let (all, tenants) = (slots.tenants.all_contenders(), slots.tenants.contenders.tenants());
    slots.tell_spent();
    let (mut told, open_to) = (LineTotals::default(), slots.promises.len());
    slots.queues.iter_mut().for_each(|queue| queue.add_up(open_to, &mut told));
    let mut with_lines: Vec<usize> =
        slots.queues.iter().flat_map(contending).map(|(tenant, _)| tenant).collect();
    let mut found = LineTotals::default();
    for tenant in &with_lines {
        let account = &slots.tenants.accounts[*tenant];
        let (spent, weight) = (account.spent(), u128::from(account.weight));
        found.lines += 1;
        found.weight += weight;
        found.weighted += spent * weight;
        found.least = [found.least, Some((spent, *tenant))].into_iter().flatten().min();
    }
    with_lines.sort_unstable();
    with_lines.dedup();
    if (all, told, tenants) == (found, found, with_lines.len()) {
        return Ok(());
    }
    Err(format!("{tenants} tenants with {all:?} and {told:?} instead of {found:?} of {with_lines:?}"))
}

/// The sums of each queue, the number of its lines, and the weights of all tenants that take part.
fn sums_agree(slots: &Slots) -> Result<(), String> {
    for (number, queue) in slots.queues.iter().enumerate() {
        let mut found = (0, 0);
        for (tenant, _) in contending(queue) {
            let account = &slots.tenants.accounts[tenant];
            let weight = u128::from(account.weight);
            found = (found.0 + weight, found.1 + account.spent() * weight);
            if !queue.is_contending(tenant) || !account.lines.contains(&number) {
                return Err(format!("{account:?} has no line in queue {number}"));
            }
        }
        let known = slots.sums_of(number);
        if known != found {
            return Err(format!("queue {number} sums up to {known:?} instead of {found:?}"));
        }
        for open_to in 0..=slots.promises.len() {
            let lines = contending(queue).filter(|(_, place)| place.blocks <= open_to).count();
            if queue.lines_to(open_to) != lines {
                return Err(format!("{lines} lines of queue {number} may start something at {open_to}"));
            }
        }
    }
    let weights = slots.tenants.all().map(|account| account.weight).sum::<u64>();
    let sharing = slots.tenants.sharing();
    if sharing == weights { Ok(()) } else { Err(format!("{sharing} is shared by instead of {weights}")) }
}

/// Tenants have lines in several queues while weights change, one of the queues pauses, and the slots become fewer.
#[test]
fn what_is_kept_follows_weights_and_queues() {
    let at = |second: u64| Timestamp::from_millis(1_000 * (10_000 + second));
    let mut slots = Slots::new(SlotRules { slots: 6, reserve: Some(1), room: Some(1) });
    for target in [30, 600, 3_600] {
        let (target, typical) = (Duration::from_secs(target), Some(Duration::from_secs(60)));
        let queue = slots.join(QueueTerms { target, min_workers: 0, typical });
        slots.report(queue, 4, true, at(0));
    }
    for tag in 0..60 {
        let (tenant, queue) = (["a", "b", "c", ""][tag as usize % 4], tag as usize % 3);
        let tenant = Some(tenant).filter(|tenant| !tenant.is_empty());
        let waiting = WaitingTask { tag, tenant, task: "t", priority: (tag % 2) as u8, since: at(tag) };
        slots.arrive(queue, waiting, at(tag));
        agree(&slots).unwrap();
    }
    let mut runs = Vec::new();
    for second in 100..200 {
        match second % 10 {
            1 => slots.set_weight("a", TenantWeight::new((second % 7 + 1) as f64).expect("a weight")),
            2 => slots.set_weight("nobody", TenantWeight::default()),
            3 => slots.report(1, 0, second % 20 < 10, at(second)),
            4 => slots.report(1, 4, true, at(second)),
            5 => slots.resize(3 + second as usize % 4, at(second)),
            _ => {}
        }
        slots.dispatch(at(second));
        agree(&slots).unwrap();
        runs.extend((0..3).flat_map(|queue| std::iter::from_fn(|| slots.take(queue)).collect::<Vec<_>>()));
        if second % 3 == 0 && !runs.is_empty() {
            let over = runs.remove(second as usize % runs.len());
            slots.finish(over.run, true, at(second));
            (0..3).for_each(|queue| slots.report(queue, 4, true, at(second)));
        }
        agree(&slots).unwrap();
    }
    assert!(slots.waiting() < 50, "{} of sixty wait still", slots.waiting());
}
