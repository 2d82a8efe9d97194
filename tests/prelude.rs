//! A program that names nothing but the prelude: the compiler is the test that the prelude is enough for it.

use std::time::Duration;

use celeriac::prelude::*;

const PATIENCE: Duration = Duration::from_secs(120);

/// What the program gives to its tasks.
struct Rate(u32);

#[task(queue = "sums")]
async fn square(ctx: &Context, rate: Data<Rate>, number: u32) -> Result<u32, TaskError> {
    let number = number.checked_mul(number).ok_or_else(|| TaskError::permanent("too large"))?;
    assert_eq!(ctx.queue(), "sums");
    Ok(number * rate.0)
}

#[task]
fn sum(numbers: Vec<u32>) -> u32 {
    numbers.into_iter().sum()
}

#[serial_task(key = "{account}")]
async fn book(account: String, amount: u32) -> String {
    format!("{account}: {amount}")
}

#[periodic_task(crontab(minute = 0, hour = 0), tenants = tenants)]
async fn report(tenant: String) {
    let _ = tenant;
}

async fn tenants() -> Result<Vec<Tenant>, TaskError> {
    Ok(vec![Tenant::new("acme", Zone::UTC)])
}

/// A source needs no dependency on the crate that its attribute comes from.
struct Rows;

#[async_trait]
impl Source for Rows {
    async fn due(&self, limit: usize) -> Result<Vec<Due>, TaskError> {
        let call: Signature<square::Task> = square::s(3).durability(Durability::Memory);
        Ok(vec![Due::new("row 3", call)].into_iter().take(limit).collect())
    }
}

#[tokio::test]
async fn the_prelude_is_enough_for_a_program() {
    let catalogue = Catalogue::new().with_queue(QueueRow::new("sums").with_pool(Pool::Io).with_workers(3));
    let builder: Builder = Celeriac::builder().in_memory().catalogue(catalogue).data(Rate(10));
    let celeriac = builder.start().await.unwrap();
    let client: std::sync::Arc<dyn Client> = celeriac.client();

    let one: AsyncResult<square::Task> = square::s(2).send(client.clone()).await.unwrap();
    let receipt: &Receipt = one.receipt();
    assert_eq!((receipt.queue.as_str(), one.get(PATIENCE).await), ("sums", Ok(40)));
    assert_eq!(one.state().await, Ok(State::Success));
    let all: Canvas<u32> = chord([square::s(1), square::s(2)], sum::p());
    assert_eq!(all.send(client.clone()).await.unwrap().get(PATIENCE).await, Ok(50));
    let steps = chain([sum::s(vec![6]), sum::s(vec![7])]);
    assert_eq!(steps.send(client.clone()).await.unwrap().get(PATIENCE).await, Ok(7));
    let booked = book::s("a".into(), 7).send(client.clone()).await.unwrap();
    assert_eq!(booked.get(PATIENCE).await, Ok("a: 7".to_owned()));
    let of_group = group([sum::s(vec![1, 2])]).send(client.clone()).await.unwrap();
    assert_eq!(of_group.get(PATIENCE).await, Ok(vec![3]));
    let by_name = signature(<sum::Task as celeriac::task::Task>::NAME).arg([4, 5]);
    let by_name: Json = by_name.send(client).await.unwrap().get(PATIENCE).await.unwrap();
    assert_eq!(by_name.text(), "9");

    // Where its event loop has no time to answer, it is asked again.
    let asked = async {
        loop {
            if let Ok(status) = celeriac.queue("sums").await {
                return status;
            }
        }
    };
    let status: QueueStatus = tokio::time::timeout(PATIENCE, asked).await.unwrap();
    assert_eq!((status.workers, status.failed), (3, 0));
    let due = Rows.due(5).await.unwrap();
    assert_eq!((due.len(), Rows.due(0).await.unwrap().len()), (1, 0));
    celeriac.shutdown().await.unwrap();
}

#[test]
fn the_root_has_the_same_names() {
    fn same<T: 'static, U: 'static>() -> bool {
        std::any::TypeId::of::<T>() == std::any::TypeId::of::<U>()
    }
    assert!(same::<QueueRow, celeriac::QueueRow>() && same::<QueueRow, celeriac::catalogue::QueueRow>());
    assert!(same::<Due, celeriac::Due>() && same::<Due, celeriac::task::Due>());
    assert!(same::<QueueStatus, celeriac::QueueStatus>() && same::<Tenant, celeriac::Tenant>());
}
