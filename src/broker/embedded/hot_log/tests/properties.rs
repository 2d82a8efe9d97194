//! Whatever is written, retired, flushed and looked at: the memtables over the database are one map, and frames give back what was
//! written into them.

use proptest::prelude::*;

use super::*;
use crate::broker::embedded::tables::TABLES;

#[derive(Clone, Debug)]
enum Step {
    Put(bool, u8, u8),
    Delete(bool, u8),
    /// Puts a row whose key no row had.
    Begin(u8),
    /// Deletes one of those.
    End(prop::sample::Index),
    Retire,
    Flush,
    /// Begins to read all as it is now.
    Look,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (any::<bool>(), 0..12_u8, any::<u8>()).prop_map(|(table, key, value)| Step::Put(table, key, value)),
        3 => (any::<bool>(), 0..12_u8).prop_map(|(table, key)| Step::Delete(table, key)),
        4 => any::<u8>().prop_map(Step::Begin),
        4 => any::<prop::sample::Index>().prop_map(Step::End),
        2 => Just(Step::Retire),
        2 => Just(Step::Flush),
        2 => Just(Step::Look),
    ]
}

/// Compares all ways to read with a map.
fn compare(memtables: &Memtables, disk: &DiskTables, models: &[Model; 2]) -> Result<(), TestCaseError> {
    for (table, model) in [MESSAGES, TASKS].into_iter().zip(models) {
        prop_assert_eq!(&model_of(merged(memtables, disk, table)), model);
        let mut back: Vec<_> =
            merged(memtables, disk, table).rev().map(|row| row.unwrap().0.to_vec()).collect();
        back.reverse();
        prop_assert_eq!(&back, &model.keys().cloned().collect::<Vec<_>>());
        // From both ends in turn, each row comes once.
        let (mut rows, mut met) = (merged(memtables, disk, table), Vec::new());
        loop {
            let row = if met.len().is_multiple_of(3) { rows.next_back() } else { rows.next() };
            let Some(row) = row else { break };
            met.push(row.unwrap().0.to_vec());
        }
        met.sort();
        prop_assert_eq!(&met, &back);
        for (from, to) in [(0_u8, 5_u8), (5, 5), (7, 3), (3, 255)] {
            let (from, to) = ([from], [to]);
            let bounds = (Bound::Included(&from[..]), Bound::Excluded(&to[..]));
            let in_disk = (from < to).then(|| disk.range(table, bounds).unwrap());
            let found = model_of(MergedRows::merged(memtables.newest_first(), in_disk, table, bounds));
            let expected: Model = model
                .iter()
                .filter(|(key, _)| key.as_slice() >= &from[..] && key.as_slice() < &to[..])
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect();
            prop_assert_eq!(found, expected);
        }
        for key in 0..12_u8 {
            let row = match memtables.get(table, &[key]) {
                Some(row) => row,
                None => disk.get(table, &[key]).unwrap(),
            };
            prop_assert_eq!(row.map(|row| row.to_vec()), model.get(&[key][..]).cloned());
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    /// Memtables over a database are one map, whenever a memtable is frozen, retired or written. Whoever has begun to read sees
    /// what was there then, whatever comes later.
    #[test]
    fn memtables_over_the_database_are_one_map(steps in prop::collection::vec(step(), 1..60)) {
        let dir = tempfile::tempdir().unwrap();
        let disk = DiskTables::open(dir.path(), false).unwrap();
        let memtables = Memtables::of(Vec::new());
        let mut models = [Model::new(), Model::new()];
        let (mut begun, mut waiting, mut epoch) = (0_u8, Vec::new(), 0);
        let (mut retired, mut looks) = (VecDeque::new(), Vec::new());
        for step in steps {
            let mut writes = Writes::default();
            match step {
                Step::Put(is_task, key, value) => {
                    writes.put(if is_task { TASKS } else { MESSAGES }, &[key], &[value; 30]);
                    models[usize::from(is_task)].insert(vec![key], vec![value; 30]);
                }
                Step::Delete(is_task, key) => {
                    writes.delete(if is_task { TASKS } else { MESSAGES }, &[key]);
                    models[usize::from(is_task)].remove(&[key][..]);
                }
                Step::Begin(value) => {
                    let key = [100, begun];
                    begun += 1;
                    waiting.push(key);
                    writes.put_new(MESSAGES, &key, &[value]);
                    models[0].insert(key.to_vec(), vec![value]);
                }
                Step::End(index) if !waiting.is_empty() => {
                    let key = waiting.swap_remove(index.index(waiting.len()));
                    writes.delete(MESSAGES, &key);
                    models[0].remove(&key[..]);
                }
                Step::End(_) => {}
                Step::Retire => retired.push_back(memtables.retire()),
                Step::Flush => {
                    if let Some(oldest) = retired.pop_front() {
                        epoch += 1;
                        let mark = Flushed { epoch, number: epoch };
                        // Once more, as after a crash before the file was given back.
                        for _ in 0..2 {
                            flusher::write(&disk, &memtables, &oldest, mark).unwrap();
                        }
                        oldest.iter().for_each(|_| memtables.drop_oldest());
                        prop_assert_eq!(disk.flushed().unwrap(), mark);
                    }
                }
                Step::Look => {
                    let (frozen, at_disk) = memtables.as_of_now(|| disk.as_of_now());
                    looks.push((frozen, at_disk, models.clone()));
                }
            }
            memtables.apply(&[&writes]);
            compare(&memtables, &disk, &models)?;
        }
        for (frozen, at_disk, models) in &looks {
            compare(frozen, at_disk, models)?;
        }
        drop(looks);
        disk.close();
    }

    /// Frames that are cut anywhere, and files in any order, give the commits up to the cut.
    #[test]
    fn any_writes_come_back(writes in prop::collection::vec((0..6_usize, prop::collection::vec(any::<u8>(), 0..40), prop::option::of(prop::collection::vec(any::<u8>(), 0..300))), 0..30)) {
        let mut commit = Writes::default();
        for (table, key, value) in &writes {
            match value {
                Some(value) => commit.put(TABLES[*table], key, value),
                None => commit.delete(TABLES[*table], key),
            }
        }
        let mut buffer = Vec::new();
        prop_assert!(frame::encode(&mut buffer, 1, 1, &[&commit]));
        let mut found = Vec::new();
        let read = frame::Frame::read(&buffer).unwrap();
        prop_assert!(read.each(|(table, key, value)| found.push((table as usize, key.to_vec(), value.map(<[u8]>::to_vec)))));
        prop_assert_eq!(found, writes);
    }
}
