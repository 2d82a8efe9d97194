//! The demo of the commcare example in a real Chromium.

use serde_json::json;

use super::chromium::Chromium;
use super::program::Program;

fn data() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

/// Presses a button of the demo page.
fn start(chromium: &Chromium, program: &Program, form: &str) {
    chromium.go(&format!("{}/soil-demo", program.url));
    chromium.click(&format!("#{form} button"));
    chromium.until("document.querySelector('.soil-display')");
}

const IS_READY: &str = "document.querySelector('[id^=ready_]')";
const IS_MOVING: &str = "document.querySelector('.soil-display progress')?.value >= 5";

/// A bar that has a value keeps one, and never goes back.
fn assert_forward(seen: &[i64]) {
    assert!(seen.is_sorted(), "the bar went back: {seen:?}");
    let values = seen.iter().filter(|value| **value >= 0).count();
    assert!(values >= 3, "the bar did not move: {seen:?}");
    assert!(!seen.contains(&100), "it was done before it was: {seen:?}");
}

#[test]
fn an_export_moves_and_ends_with_its_file_for_both_tabs() {
    let data = data();
    let program = Program::start(data.path(), "0");
    let chromium = Chromium::start(true);
    chromium.go(&format!("{}/soil-demo", program.url));
    chromium.picture("demo-light");
    start(&chromium, &program, "export");
    chromium.until(IS_MOVING);
    chromium.pictures("running");
    let first = chromium.url();
    chromium.reload();

    // Somebody else asks for the same.
    let (here, there) = chromium.new_tab();
    start(&chromium, &program, "export");
    let second = chromium.url();
    let id = |url: &str| url.split_once('?').unwrap().0.to_owned();
    assert_eq!(id(&first), id(&second), "the second click joins the run of the first");
    chromium.until(IS_READY);
    chromium.switch(&here);
    chromium.until(IS_READY);
    chromium.pictures("ready");
    assert_forward(&chromium.seen());
    assert!(chromium.text().contains("Your export is ready."), "{}", chromium.text());
    chromium.click("[id^=ready_] a");
    let file = chromium.downloaded("Fälle demo.csv");
    assert_eq!(file.lines().count(), 101);
    // One run made it.
    assert!(file.lines().next().unwrap().ends_with("run 1"), "{file}");
    chromium.switch(&there);
}

#[test]
fn failures_are_shown_one_by_one_a_group_as_one_and_cancelling_works() {
    let data = data();
    let program = Program::start(data.path(), "0");
    let chromium = Chromium::start(true);
    start(&chromium, &program, "fail-listed");
    chromium.until("document.querySelector('[id^=error_]')");
    let errors = chromium.eval("[...document.querySelectorAll('.soil-errors li')].map(one => one.innerText)");
    assert_eq!(errors, json!(["row 3: no case of id \"<b>x7</b>\"", "row 9: 2026-02-30 is no date"]));
    chromium.pictures("failed-listed");
    start(&chromium, &program, "fail-raised");
    chromium.until("document.querySelector('[id^=error_]')");
    chromium.pictures("failed-raised");
    assert!(chromium.text().contains("my uncool error"), "{}", chromium.text());

    start(&chromium, &program, "group");
    chromium.until("document.querySelectorAll('.soil-members progress').length > 0");
    chromium.pictures("group");
    chromium.until(IS_READY);
    chromium.pictures("group-ready");
    assert_eq!(chromium.eval("document.querySelectorAll('.soil-files a').length"), 3);
    chromium.click(".soil-files li:nth-child(2) a");
    assert!(chromium.downloaded("part 2.csv").starts_with("case,visits"));

    start(&chromium, &program, "long");
    chromium.until(IS_MOVING);
    chromium.click(".soil-actions button");
    chromium.until("document.querySelector('[data-state=cancelled]')");
    chromium.pictures("cancelled");
    assert!(chromium.text().contains("Cancelled"), "{}", chromium.text());

    // What waits says so, and why.
    let lever = |lever: &str| {
        chromium.go(&program.url);
        let path = format!("/queues/export_download_queue/{lever}");
        // Where the queue has no time to answer, once more.
        chromium.eval(&format!(
            "(function pull() {{
                fetch('{path}', {{method: 'POST', body: '{{}}'}})
                    .then(answer => answer.ok ? window.pulled = '{lever}' : pull());
            }})(), null"
        ));
        chromium.until(&format!("window.pulled === '{lever}'"));
    };
    lever("pause");
    start(&chromium, &program, "group");
    chromium.until("document.querySelector('.soil-warning')");
    chromium.pictures("group-waiting");
    start(&chromium, &program, "export");
    chromium.until("document.querySelector('[data-state=waiting]')");
    chromium.pictures("waiting");
    assert!(chromium.text().contains("is paused"), "{}", chromium.text());
    lever("resume");
}

#[test]
fn a_killed_server_goes_on_where_the_bar_was() {
    let data = data();
    // Nobody else takes it meanwhile.
    let port = celeriac_test_support::free_port().to_string();
    let program = Program::start(data.path(), &port);
    let chromium = Chromium::start(true);
    start(&chromium, &program, "export");
    chromium.until("document.querySelector('.soil-display progress')?.value >= 20");
    program.kill();
    let before = chromium.seen();
    let program = Program::start(data.path(), &port);
    chromium.until(IS_READY);
    let seen = chromium.seen();
    assert!(seen.len() > before.len(), "the page is up to date again by itself: {before:?} {seen:?}");
    assert_forward(&seen);
    chromium.click("[id^=ready_] a");
    let file = chromium.downloaded("Fälle demo.csv");
    assert_eq!(file.lines().count(), 101);
    assert!(file.lines().next().unwrap().ends_with("run 2"), "{file}");
    drop(program);
}

#[test]
fn in_arabic_the_page_is_mirrored_and_its_script_speaks_arabic() {
    let data = data();
    let program = Program::start(data.path(), "0");
    let chromium = Chromium::start(true);
    chromium.command("Network.enable", &json!({}));
    let headers = json!({ "headers": { "Accept-Language": "ar-EG,ar;q=0.9" } });
    chromium.command("Network.setExtraHTTPHeaders", &headers);
    start(&chromium, &program, "long");
    chromium.until(IS_MOVING);
    assert_eq!(chromium.eval("document.documentElement.dir"), "rtl");
    assert_eq!(chromium.eval("document.documentElement.lang"), "ar");
    // The script has written this since the page was loaded.
    chromium.until("document.title.includes('٪')");
    // What begins a line is on the right, and the bar fills from there.
    let is_right = "(() => {
        const card = document.querySelector('.soil-card').getBoundingClientRect();
        const button = document.querySelector('.soil-actions button').getBoundingClientRect();
        return card.right - button.right < button.left - card.left;
    })()";
    assert_eq!(chromium.eval(is_right), true);
    assert_eq!(chromium.eval("getComputedStyle(document.querySelector('progress')).direction"), "rtl");
    chromium.pictures("running-arabic");
    start(&chromium, &program, "export");
    chromium.until(IS_READY);
    chromium.pictures("ready-arabic");
    assert_eq!(chromium.eval("document.title"), "جاهز");
    assert!(chromium.text().contains("تنزيل"), "{}", chromium.text());
    chromium.click(".soil-back a");
    chromium.until("location.pathname === '/soil-demo'");
}

#[test]
fn without_scripts_the_page_loads_itself_again_up_to_the_file() {
    let data = data();
    let program = Program::start(data.path(), "0");
    let chromium = Chromium::start(false);
    start(&chromium, &program, "export");
    chromium.until(IS_MOVING);
    chromium.picture("running-no-script");
    // It does so now and then, so both are asked for until there is a page to ask.
    chromium.until("document.body.innerText.includes('loads itself again')");
    chromium.until("document.querySelector('meta[http-equiv=refresh]').content === '2'");
    chromium.until(IS_READY);
    chromium.click("[id^=ready_] a");
    assert_eq!(chromium.downloaded("Fälle demo.csv").lines().count(), 101);
}
