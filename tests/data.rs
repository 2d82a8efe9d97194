//! Data that the program gives to its tasks. This program alone has tasks that take any, because a runtime does not start
//! without the data of its tasks.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use celeriac::app::StartError;
use celeriac::task::Data;
use celeriac::{Builder, Celeriac, Context, task};

const PATIENCE: Duration = Duration::from_secs(120);

/// What a program might share: a name, and something that counts.
struct Shop {
    name: String,
    orders: AtomicU32,
}

impl Shop {
    fn named(name: &str) -> Self {
        Self { name: name.to_owned(), orders: AtomicU32::new(0) }
    }
}

struct Rates(f64);

/// Data stands before, between and behind the arguments, and a context comes first.
#[task]
async fn order(
    ctx: Context,
    shop: Data<Shop>,
    amount: u32,
    rates: celeriac::task::Data<Rates>,
    note: String,
) -> String {
    let nth = shop.orders.fetch_add(1, Ordering::SeqCst) + 1;
    assert!(ctx.data::<String>().is_none(), "{} was not given any", ctx.task());
    format!("{}: order {nth} of {}, {note}", shop.name, f64::from(amount) * rates.0)
}

/// A blocking body takes it as well.
#[task]
fn count(shop: Data<Shop>) -> u32 {
    shop.orders.load(Ordering::SeqCst)
}

fn builder() -> Builder {
    Celeriac::builder().in_memory()
}

#[tokio::test]
async fn tasks_take_what_the_program_has_given_and_callers_leave_it_out() {
    let shop = Arc::new(Shop::named("Sellery"));
    let shared = Data::from(Arc::clone(&shop));
    let celeriac = builder().shared_data(shared).data(Rates(0.5)).start().await.unwrap();
    let client = celeriac.client();
    let first = order::s(8, "to go".into()).send(client.clone()).await.unwrap();
    assert_eq!(first.get(PATIENCE).await.unwrap(), "Sellery: order 1 of 4, to go");
    assert_eq!(count::s().send(client).await.unwrap().get(PATIENCE).await, Ok(1));
    assert_eq!(shop.orders.load(Ordering::SeqCst), 1);
    celeriac.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_program_that_forgets_it_does_not_start_and_both_are_named() {
    let Err(error) = builder().data(Rates(0.5)).start().await else { panic!("it starts") };
    let text = error.to_string();
    assert!(matches!(error, StartError::DataNotGiven { .. }), "{text}");
    for part in ["data::count", "tests/data.rs:", "Data<data::Shop>", ".data(..)"] {
        assert!(text.contains(part), "{text}");
    }
}

#[tokio::test]
async fn each_test_has_its_own_and_needs_what_it_runs_only() {
    let app = celeriac::testing::builder()
        .program(Celeriac::builder().data(Shop::named("one")))
        .start()
        .await
        .unwrap();
    let other = celeriac::testing::builder()
        .program(Celeriac::builder().data(Shop::named("two")))
        .start()
        .await
        .unwrap();
    let counted = count::s().send(app.client()).await.unwrap();
    // The rates are not there: this run fails for good, and says so.
    let failed = order::s(1, String::new()).send(other.client()).await.unwrap();
    app.run_until_idle().await;
    other.run_until_idle().await;
    assert_eq!(counted.get(PATIENCE).await, Ok(0));
    let error = failed.get(PATIENCE).await.unwrap_err().to_string();
    assert!(error.contains("Data<data::Rates>"), "{error}");
}

#[tokio::test]
async fn the_function_is_called_with_data_of_the_callers_own() {
    let shop = Data::new(Shop::named("here"));
    let told = order(Context::detached(), shop, 2, Data::new(Rates(1.0)), "now".into()).await;
    assert_eq!(told, "here: order 1 of 2, now");
}
