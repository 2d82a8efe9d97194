use futures_util::future::BoxFuture;
use serde_json::Value;
use tokio::time::{advance, pause};
use tokio_util::sync::CancellationToken;

use super::super::InFlight;
use super::*;
use crate::broker::amqp::{AmqpOptions, BothWays};
use crate::broker::{Activity, BrokerListener, ControlRequest, FollowUps};
use crate::rabbitmq::Addresses;
use crate::store::StoreError;
use crate::task::{Arguments, EventFunnel, EventGroup, EventStream, State, TaskId, TaskOptions, TaskResult};

/// Hears of tasks that are over without having been run to their end.
#[derive(Default)]
struct Heard(Mutex<Vec<TaskResult>>);

impl BrokerListener for Heard {
    fn options(&self, _: &str) -> Option<TaskOptions> {
        None
    }

    fn plan_follow_ups(&self, _: &Message, _: &mut TaskResult) -> Option<Box<FollowUps>> {
        None
    }

    fn over(&self, record: TaskResult, _: Option<&Message>) {
        self.0.lock().push(record);
    }

    fn end(&self, record: TaskResult, message: Option<&Message>) -> BoxFuture<'static, ()> {
        self.over(record, message);
        Box::pin(std::future::ready(()))
    }

    fn events(&self, groups: &[EventGroup]) -> EventStream {
        EventFunnel::default().listen(groups)
    }

    fn activity(&self) -> Activity {
        Activity::default()
    }

    fn parked(&self, _: &Arc<Message>) -> bool {
        false
    }

    fn lost(&self, _: Vec<u64>) {}

    fn revoked(&self, _: Vec<TaskId>, _: bool) -> BoxFuture<'static, Result<Vec<TaskId>, StoreError>> {
        Box::pin(std::future::ready(Ok(Vec::new())))
    }

    fn control(&self, _: ControlRequest) -> BoxFuture<'static, Option<Value>> {
        Box::pin(std::future::ready(None))
    }
}

const LIMIT: u32 = 3;

/// The consumer of a queue on a RabbitMQ that is away, with one delivery that is being posted. A test gives it the
/// publisher's answers, because the publisher itself goes on trying for as long as RabbitMQ is away.
async fn consumer(place: DeliveryLocation) -> (QueueConsumer, u64, Arc<Heard>) {
    let addresses = Addresses::parse("amqp://guest:guest@127.0.0.1:1/%2f").unwrap();
    let both = BothWays { reading: addresses.clone(), writing: addresses };
    let options = AmqpOptions { delivery_limit: LIMIT, ..AmqpOptions::default() };
    let shared = AmqpInner::open(both, options, true, CancellationToken::new()).await.unwrap();
    let heard = Arc::<Heard>::default();
    assert!(shared.listener.set(Arc::clone(&heard) as _).is_ok());
    let mut line = QueueConsumer::new(shared, "q".to_owned());
    let options = TaskOptions::default();
    let message = Message::new("a".into(), "task", Arguments::default(), "q", options, now());
    let tag = line.hold(InFlight { posting: true, ..InFlight::new(message, place, false) });
    pause();
    (line, tag, heard)
}

fn crashes(line: &QueueConsumer, tag: u64) -> u32 {
    line.in_flight[&tag].message.crashes
}

/// The publisher answers that it could not, and the pause goes by.
async fn fail(line: &mut QueueConsumer, tag: u64) {
    let before = crashes(line, tag);
    line.posted(tag, Err(BrokerError::io("RabbitMQ is away")), None);
    advance(RETURNS_AFTER - Duration::from_millis(1)).await;
    line.return_the_rested();
    assert_eq!((line.returning.len(), crashes(line, tag)), (1, before), "it stays for the whole pause");
    advance(Duration::from_millis(1)).await;
    line.return_the_rested();
    assert!(line.returning.is_empty());
}

#[tokio::test]
async fn what_goes_back_again_and_again_is_ended_by_the_delivery_limit() {
    let (mut line, tag, heard) = consumer(DeliveryLocation::Queue { consumer: 1, delivery_tag: 1 }).await;
    for times in 1..LIMIT {
        fail(&mut line, tag).await;
        assert_eq!(crashes(&line, tag), times);
        assert!(line.in_flight[&tag].posting, "it is published with its count");
        assert!(heard.0.lock().is_empty());
    }
    fail(&mut line, tag).await;
    let records = heard.0.lock().clone();
    assert_eq!(records.len(), 1);
    assert_eq!((records[0].id.as_str(), records[0].state), ("a", State::Failure));
    assert!(records[0].errors[0].contains("ended 3 times"), "{:?}", records[0].errors);
    // Its letter is published, and the delivery is done with.
    line.posted(tag, Ok(()), None);
    assert!(line.in_flight.is_empty() && line.returning.is_empty());
}

/// RabbitMQ delivers it again: the crash counts when it has.
#[tokio::test]
async fn what_is_lost_during_the_pause_counts_when_it_comes_again() {
    let place = DeliveryLocation::Queue { consumer: 1, delivery_tag: 1 };
    let (mut line, tag, heard) = consumer(place).await;
    line.posted(tag, Err(BrokerError::io("RabbitMQ is away")), None);
    line.lost(tag);
    advance(RETURNS_AFTER).await;
    line.return_the_rested();
    assert_eq!(crashes(&line, tag), 0);
    line.found(tag, DeliveryLocation::Queue { consumer: 2, delivery_tag: 1 });
    assert_eq!(crashes(&line, tag), 1);
    assert!(line.in_flight[&tag].posting, "it is published with its count");
    assert!(heard.0.lock().is_empty());
}

/// Somebody made its queue anew before this process looked: its retry is published, and waits for nothing to come again.
#[tokio::test]
async fn what_ended_while_it_was_lost_takes_effect_when_it_is_gone() {
    let (mut line, tag, _) = consumer(DeliveryLocation::Queue { consumer: 1, delivery_tag: 1 }).await;
    line.in_flight.get_mut(&tag).unwrap().posting = false;
    line.lost(tag);
    let message = Message { retries: 1, ..Message::clone(&line.in_flight[&tag].message) };
    line.settle(tag, Settle::Requeue { message: Box::new(message), due: None }, None);
    assert!(!line.in_flight[&tag].posting, "it may come again");
    assert_eq!(line.all_gone(0), 1);
    assert!(line.in_flight[&tag].posting, "its retry is published");
    line.posted(tag, Ok(()), None);
    assert!(line.in_flight.is_empty() && line.lost.is_empty());
}

/// A copy of it may come again, from the guard queue say, and must not start beside its run.
#[tokio::test]
async fn what_is_gone_is_recognised_for_as_long_as_it_runs() {
    let (mut line, tag, _) = consumer(DeliveryLocation::Queue { consumer: 1, delivery_tag: 1 }).await;
    line.in_flight.get_mut(&tag).unwrap().posting = false;
    line.lost(tag);
    line.all_gone(0);
    let id = line.in_flight[&tag].message.id.clone();
    assert_eq!(line.lost.get(&id), Some(&tag));
    line.settle(tag, Settle::Return { crashed: false }, None);
    // The message that is published now is another one, which is to run.
    assert_eq!(line.lost.get(&id), None);
    assert!(line.in_flight[&tag].posting);
}

/// What was in hand and had not started goes back only if there is a queue to go back to.
#[tokio::test]
async fn what_is_given_back_before_it_is_known_whether_its_queue_is_gone_is_kept() {
    let place = DeliveryLocation::Queue { consumer: 1, delivery_tag: 2 };
    let (mut line, first, _) = consumer(place).await;
    let of_first = Message::clone(&line.in_flight[&first].message);
    for (doubt, is_kept) in [(QueueDoubt::Away, false), (QueueDoubt::Cancelled, true)] {
        let message = Message { id: format!("{doubt:?}").into(), ..of_first.clone() };
        let tag = line.hold(InFlight::new(message, place, false));
        line.doubt = Some(doubt);
        line.lost(tag);
        line.settle(tag, Settle::Return { crashed: false }, None);
        assert_eq!(line.in_flight.contains_key(&tag), is_kept, "{doubt:?}");
        line.all_gone(0);
        assert_eq!(line.in_flight.get(&tag).is_some_and(|held| held.posting), is_kept, "{doubt:?}");
    }
}

/// One of the queues that the line takes from was deleted, and another one is still there.
#[tokio::test]
async fn what_waits_here_and_comes_again_is_forgotten_and_what_is_gone_is_not() {
    let place = DeliveryLocation::Queue { consumer: 1, delivery_tag: 1 };
    let (mut line, gone, _) = consumer(place).await;
    let message = Message { id: "b".into(), ..Message::clone(&line.in_flight[&gone].message) };
    let comes_again = line.hold(InFlight::new(message, place, false));
    line.in_flight.get_mut(&comes_again).unwrap().source = 1;
    for tag in [gone, comes_again] {
        line.early.insert((now(), tag));
        line.lost(tag);
    }
    line.all_gone(0);
    line.forget_early(Some(1));
    assert!(!line.in_flight.contains_key(&comes_again), "it would run here, and where it comes again");
    line.forget_early(None);
    assert!(line.in_flight.contains_key(&gone), "it comes nowhere again");
    assert_eq!(line.early.iter().map(|(_, tag)| *tag).collect::<Vec<_>>(), [gone]);
}

/// All consumers of a channel end with its error, and the first of them need not be that of the queue that is missing.
#[tokio::test]
async fn what_rabbitmq_says_of_one_partition_is_not_believed_of_another_one() {
    let (mut line, _, _) = consumer(DeliveryLocation::Queue { consumer: 1, delivery_tag: 1 }).await;
    line.partitions = vec!["q.0".to_owned(), "q.1".to_owned()];
    line.note_missing("NOT_FOUND - no exchange 'x' in vhost '/'");
    assert_eq!((line.doubt, line.cancelled.len()), (None, 0));
    line.note_missing("NOT_FOUND - no queue 'q.1' in vhost '/'");
    assert_eq!(line.doubt, Some(QueueDoubt::Cancelled));
    assert_eq!(line.cancelled.iter().copied().collect::<Vec<_>>(), [2]);
    line.note_missing("NOT_FOUND - no queue 'q' in vhost '/'");
    assert_eq!(line.cancelled.iter().copied().collect::<Vec<_>>(), [0, 2]);
}
