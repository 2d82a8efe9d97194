//! Which argument names the tenant of a task: what the file says, and that calls have it.

use celeriac::app::StartError;
use celeriac::catalogue::Catalogue;
use celeriac::task::{NewTask, TENANT, TaskOptions};
use celeriac::{EnqueueError, task, testing};

use crate::{errors_of, parse};

#[task(name = "tenants.any")]
fn any(report: u64, domain: String) {
    let _ = (report, domain);
}

#[task(name = "tenants.own", tenant = "{project}-{domain}")]
fn own(project: String, domain: String) {
    let _ = (project, domain);
}

#[task(name = "tenants.row", tenant = "{domain}")]
fn row(domain: String, project: u64) {
    let _ = project;
}

#[task(name = "tenants.none")]
fn none(domain: String) {
    let _ = domain;
}

#[task(name = "tenants.neither")]
fn neither() {}

const TEXT: &str = r#"
tenant = "domain"

[tenants.tasks]
"tenants.row" = "project"
"tenants.none" = ""
"python.task" = "project"

[environment.live.tenants.tasks]
"tenants.none" = "domain"
"#;

#[tokio::test]
async fn a_call_has_the_tenant_that_its_arguments_name() {
    let program = celeriac::Celeriac::builder().catalogue(parse(TEXT));
    let app = testing::builder().program(program).start().await.unwrap();
    any::delay(7, "acme".into()).await.unwrap();
    own::delay("p".into(), "d".into()).await.unwrap();
    row::delay("acme".into(), 42).await.unwrap();
    none::delay("acme".into()).await.unwrap();
    neither::delay().await.unwrap();
    any::s(7, "acme".into()).tenant("zoo").delay().await.unwrap();
    any::s(7, "acme".into()).tenant("").delay().await.unwrap();
    any::s(7, String::new()).delay().await.unwrap();
    let mut python = NewTask::new("python.task", TaskOptions::default());
    python.arguments.kwargs = r#"{"domain": "no", "project": "hq"}"#.to_owned();
    app.celeriac().client().enqueue(Box::new(python.clone())).await.unwrap();
    python.task = "python.other".to_owned();
    app.celeriac().client().enqueue(Box::new(python)).await.unwrap();
    let sent = app.enqueued();
    let tenants: Vec<Option<&str>> = sent.iter().map(|message| message.tenant()).collect();
    let expected =
        [Some("acme"), Some("p-d"), Some("42"), None, None, Some("zoo"), None, None, Some("hq"), Some("no")];
    assert_eq!(tenants, expected);
    // A name that nobody could keep is refused, and the error says which.
    let long = "x".repeat(257);
    let error = any::s(7, long.clone()).delay().await.map(drop).unwrap_err();
    assert!(matches!(error, EnqueueError::Tenant { .. }) && error.is_permanent(), "{error}");
    let text = error.to_string();
    assert!(
        text.contains("begins with `xxxxxxxx") && text.contains("has 257 bytes; give it at most 256"),
        "{text}"
    );
    assert!(any::s(7, "acme".into()).header(TENANT, long).delay().await.is_err());
    assert_eq!(app.enqueued().len(), expected.len(), "what was refused is not there");
}

#[tokio::test]
async fn an_environment_changes_the_rows_of_single_tasks() {
    let live = parse(TEXT).for_environment("live").unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(live.defaults.tenant.as_deref(), Some("domain"));
    let app =
        testing::builder().program(celeriac::Celeriac::builder().catalogue(live)).start().await.unwrap();
    none::delay("acme".into()).await.unwrap();
    row::delay("acme".into(), 42).await.unwrap();
    let sent = app.enqueued();
    let tenants: Vec<Option<&str>> = sent.iter().map(|message| message.tenant()).collect();
    assert_eq!(tenants, [Some("acme"), Some("42")]);
}

#[test]
fn the_argument_may_stand_in_the_defaults_and_not_twice() {
    let defaults = parse("[defaults]\ntenant = \"domain\"\n");
    assert_eq!(defaults.defaults.tenant.as_deref(), Some("domain"));
    let text = "tenant = \"domain\"\n[defaults]\ntenant = \"shop\"\n[tenants]\ntask = 1\n[tenants.tasks]\n\"a.b\" = 5\n\"\" = \"x\"\n\
                [environment.live.defaults]\ntenant = \"\"\n";
    let expected = "celeriac.toml:1:10: \"tenant\" at the top level is \"domain\"; [defaults] says it too: keep one of the two\n\
                    celeriac.toml:5:1: unknown key \"task\" in [tenants]; did you mean \"tasks\"?\n\
                    celeriac.toml:7:9: \"a.b\" in [tenants.tasks] must be a string in quotes, not the integer 5\n\
                    celeriac.toml:8:1: the name \"\" of a task is empty; write at least one character\n\
                    celeriac.toml:10:10: \"tenant\" in environment \"live\" under defaults is \"\"; write the name of an argument such as \"domain\"";
    assert_eq!(errors_of(text), expected);
}

#[tokio::test]
async fn a_row_that_names_no_parameter_is_an_error_at_the_start() {
    for (task, argument, text) in [
        (
            "tenants.row",
            "domian",
            "[tenants.tasks] says that the argument `domian` of `tenants.row` names its tenant, but the task has no such parameter; its parameters are: domain, project; did you mean `domain`?",
        ),
        (
            "tenants.neither",
            "domain",
            "[tenants.tasks] says that the argument `domain` of `tenants.neither` names its tenant, but the task has no such parameter; it has no parameters: take the row away",
        ),
    ] {
        let catalogue = Catalogue::new().with_tenant(task, argument);
        let program = celeriac::Celeriac::builder().catalogue(catalogue);
        let error = testing::builder().program(program).start().await.map(drop).unwrap_err();
        assert!(matches!(error, StartError::TenantArgument { .. }), "{error}");
        assert_eq!(error.to_string(), text);
    }
}
