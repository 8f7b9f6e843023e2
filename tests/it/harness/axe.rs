//! What axe-core finds in a page that some people could not use.

use std::path::Path;

use serde_json::Value;

use super::browser::Browser;

/// Serious and critical ones, a line for each place.
const FAULTS: &str = "
    const done = arguments[arguments.length - 1];
    const line = (rule, node) => `${rule.impact}: ${rule.help} (${rule.id}) at ${node.target.join(' ')}: ${node.failureSummary}`;
    axe.run(document, { resultTypes: ['violations'] }).then(
        found => done(found.violations
            .filter(rule => ['serious', 'critical'].includes(rule.impact))
            .flatMap(rule => rule.nodes.map(node => line(rule, node)))),
        error => done([`axe failed: ${error}`]));";

/// Serious faults of the page as it is shown. Fails with what installs axe-core when it is not there.
pub async fn serious_faults(browser: &Browser) -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/test-node/node_modules/axe-core/axe.min.js");
    let source =
        std::fs::read_to_string(path).unwrap_or_else(|_| panic!("axe-core is needed for this test: make setup"));
    browser.run(&source).await;
    let faults = browser.client.execute_async(FAULTS, vec![]).await.unwrap();
    faults.as_array().unwrap().iter().filter_map(Value::as_str).map(str::to_owned).collect()
}
