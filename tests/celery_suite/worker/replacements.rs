//! Tasks that send canvases, that are replaced by one, and that add to their chord.

use celeriac::task::RawSignature;
use celeriac::task::canvas::{Canvas, IntoCanvas, chain, chord, group};
use celeriac::{Context, TaskError, task};
use serde_json::{Value, json};

use super::canvas::{s, si, tuple, workflow};
use super::python::{given, rpush};

#[task(name = "t.integration.tasks.chain_add", autoretry = false, acks_late = false)]
async fn chain_add(x: Value, y: Value) -> Result<(), TaskError> {
    s("add", [x.clone(), x]).then(s("add", [y])).delay().await?;
    Ok(())
}

#[task(name = "t.integration.tasks.chord_add", autoretry = false, acks_late = false)]
async fn chord_add(x: Value, y: Value) -> Result<(), TaskError> {
    chord([s("add", [x.clone(), x])], s("add", [y])).delay().await?;
    Ok(())
}
#[task(name = "t.integration.tasks.add_replaced", autoretry = false, acks_late = false)]
async fn add_replaced(x: Value, y: Value) -> Result<(), TaskError> {
    Err(TaskError::replace(s("add", [x, y])))
}

#[task(name = "t.integration.tasks.record_replaced_task_nesting", autoretry = false, acks_late = false)]
async fn record_replaced_task_nesting(
    ctx: Context,
    replacements: u32,
    nesting: Option<Vec<u32>>,
) -> Result<Vec<u32>, TaskError> {
    let mut nesting = nesting.unwrap_or_default();
    nesting.push(workflow(&ctx).replaced_task_nesting);
    if replacements > 0 {
        let next = s("record_replaced_task_nesting", [json!(replacements - 1), json!(nesting)]);
        return Err(TaskError::replace(next));
    }
    Ok(nesting)
}

#[task(name = "t.integration.tasks.add_replaced_with_chain", autoretry = false, acks_late = false)]
async fn add_replaced_with_chain(x: Value, y: Value) -> Result<(), TaskError> {
    Err(TaskError::replace(chain([s("add", [x, y]), s("identity", [])])))
}

fn echo(link_msg: Option<Value>) -> Canvas {
    match link_msg {
        Some(message) => si("redis_echo", [message]),
        None => s("redis_echo", []),
    }
}

#[task(name = "t.integration.tasks.replace_with_chain", autoretry = false, acks_late = false)]
async fn replace_with_chain(
    a: Option<Value>,
    b: Option<Value>,
    link_msg: Option<Value>,
) -> Result<(), TaskError> {
    let steps = chain([s("identity", given([a, b])), s("identity", [])]);
    Err(TaskError::replace(steps.link(echo(link_msg))))
}

#[task(name = "t.integration.tasks.replace_with_chain_which_raises", autoretry = false, acks_late = false)]
async fn replace_with_chain_which_raises(
    a: Option<Value>,
    b: Option<Value>,
    link_msg: Option<Value>,
) -> Result<(), TaskError> {
    let steps = chain([s("identity", given([a, b])), s("raise_error", [])]);
    Err(TaskError::replace(steps.link_error(echo(link_msg))))
}

#[task(name = "t.integration.tasks.replace_with_empty_chain", autoretry = false, acks_late = false)]
async fn replace_with_empty_chain(a: Option<Value>, b: Option<Value>) -> Result<(), TaskError> {
    let _ = given([a, b]);
    Err(TaskError::replace(chain(Vec::<Canvas>::new())))
}

#[task(
    name = "t.integration.tasks.replace_with_chain_which_contains_a_group",
    autoretry = false,
    acks_late = false
)]
async fn replace_with_chain_which_contains_a_group() -> Result<(), TaskError> {
    let group = group([s("add", [json!(1)]), s("add", [json!(1)])]).untyped();
    Err(TaskError::replace(chain([s("add", [json!(1), json!(2)]), group])))
}

#[task(name = "t.integration.tasks.add_to_all", autoretry = false, acks_late = false)]
async fn add_to_all(nums: Vec<Value>, val: Value) -> Result<(), TaskError> {
    Err(TaskError::replace(group(nums.into_iter().map(|num| s("add", [num, val.clone()])))))
}

#[task(name = "t.integration.tasks.add_to_all_to_chord", autoretry = false, acks_late = false)]
async fn add_to_all_to_chord(ctx: Context, nums: Vec<Value>, val: Value) -> Result<u32, TaskError> {
    for num in nums {
        ctx.add_to_chord(s("add", [num, val.clone()])).await?;
    }
    Ok(0)
}

#[task(name = "t.integration.tasks.add_chord_to_chord", autoretry = false, acks_late = false)]
async fn add_chord_to_chord(ctx: Context, nums: Vec<Value>, val: Value) -> Result<u32, TaskError> {
    let header = group(nums.into_iter().map(|num| s("add", [num, val.clone()])));
    ctx.add_to_chord(header.then(s("tsum", []))).await?;
    Ok(0)
}

#[task(name = "t.integration.tasks.second_order_replace1", autoretry = false, acks_late = false)]
async fn second_order_replace1(state: Option<bool>) -> Result<(), TaskError> {
    if state == Some(true) {
        return rpush("redis-echo", &json!("Out A")).await;
    }
    rpush("redis-echo", &json!("In A")).await?;
    let last = si("second_order_replace1", []).kwarg("state", true);
    Err(TaskError::replace(chain([s("second_order_replace2", []), last])))
}

#[task(name = "t.integration.tasks.second_order_replace2", autoretry = false, acks_late = false)]
async fn second_order_replace2(state: Option<bool>) -> Result<(), TaskError> {
    if state == Some(true) {
        return rpush("redis-echo", &json!("Out B")).await;
    }
    rpush("redis-echo", &json!("In B")).await?;
    let last = si("second_order_replace2", []).kwarg("state", true);
    Err(TaskError::replace(chain([s("redis_echo", [json!("In/Out C")]), last])))
}

#[task(name = "t.integration.tasks.build_chain_inside_task", autoretry = false, acks_late = false)]
async fn build_chain_inside_task() -> Result<Value, TaskError> {
    let add = |args: &[i64]| s("add", args.iter().map(|n| json!(n)));
    let steps = add(&[1, 1]).then(add(&[2])).then(group([add(&[3]), add(&[4])])).then(add(&[5]));
    let result = steps.delay().await?;
    Ok(tuple(result.promise()))
}

#[task(name = "t.integration.tasks.fail_replaced", autoretry = false, acks_late = false)]
async fn fail_replaced(a: Option<Value>, b: Option<Value>) -> Result<(), TaskError> {
    Err(TaskError::replace(si("fail", given([a, b]))))
}

/// `base=StampedTaskOnReplace`: what replaces it is stamped.
#[task(name = "t.integration.tasks.replace_with_stamped_task", autoretry = false, acks_late = false)]
async fn replace_with_stamped_task(replace_with: Option<RawSignature>) -> Result<(), TaskError> {
    let with = replace_with.map_or_else(|| s("replaced_with_me", []), RawSignature::into_canvas);
    Err(TaskError::replace(with.stamp("StampOnReplace", "This is the replaced task")))
}
