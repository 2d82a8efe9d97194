//! Each page of the console against axe-core: what it calls a serious or critical violation keeps somebody from using the page.

use serde_json::json;

use super::browsing::{blocking, on_each_page, scene, serve};
use super::chromium::Chromium;
use super::kit::{data, open, start};
use super::services::Python;

/// What axe-core finds on the page, each with its rule, its target and its help.
const FIND: &str = r"
    axe.run(document, { resultTypes: ['violations'], preload: false }).then((found) =>
        found.violations
            .filter((rule) => rule.impact === 'serious' || rule.impact === 'critical')
            .flatMap((rule) => rule.nodes.map((node) =>
                `${rule.id} (${rule.impact}) at ${node.target.join(' ')}: ${rule.help}`)))
";

#[actix_web::test]
async fn no_page_keeps_anybody_out() {
    let celeriac = start().await;
    scene(&celeriac).await;
    let console = open(&celeriac).title("Shop").environment("production");
    // Beat answers when it leads.
    data(&console, "/periodic", |told| told["count"] == json!(1)).await;
    let (url, server) = serve(&console);
    blocking(move || {
        let source = std::fs::read_to_string(Python::axe_core()).unwrap();
        let chromium = Chromium::start(true);
        let mut violations = Vec::new();
        on_each_page(&chromium, &url, |name| {
            // The policy of the page forbids it scripts of others. It does not bind whoever drives the browser.
            let read = chromium.command("Runtime.evaluate", &json!({ "expression": source }));
            assert!(read.get("exceptionDetails").is_none(), "{name}: {read}");
            assert!(chromium.eval("axe.version").as_str().is_some_and(|version| version.starts_with("4.")));
            let found = chromium.eval(FIND.trim());
            let found = found.as_array().unwrap_or_else(|| panic!("{name}: {found}"));
            violations
                .extend(found.iter().map(|one| format!("{name}: {}", one.as_str().unwrap_or_default())));
        });
        assert!(violations.is_empty(), "{}", violations.join("\n"));
    })
    .await;
    server.stop(false).await;
    celeriac.client().revoke(&"runs".into(), true).await.unwrap();
    celeriac.shutdown().await.unwrap();
}
