//! Telemetry, ProxyConfig.

use super::at::At;
use super::{selector, targets};
use crate::report::Report;
use crate::yaml::Node;

pub(super) fn telemetry(spec: &Node, report: &mut Report<'_>) {
    selector(spec, "selector", report);
    targets(spec, report);
    let at = At::new(spec, "spec");
    if at.count("tracing") > 1 {
        at.near("tracing").warn(
            report,
            "only one entry has an effect",
            "keep one, or divide them by selector",
        );
    }
    for tracing in at.list("tracing") {
        if tracing.count("providers") > 1 {
            tracing.near("providers").warn(
                report,
                "only one provider has an effect",
                "keep the one that is meant",
            );
        }
        for (key, tag) in tracing.map("customTags") {
            if key.text.is_empty() {
                tag.refuse_key(report, key, "the tag has no name", "name it");
            }
            if tag.node.is_null() {
                tag.refuse(report, "the tag has no value", "say where its value comes from");
            }
        }
    }
    for metrics in at.list("metrics") {
        for change in metrics.list("overrides") {
            for (key, tag) in change.map("tagOverrides") {
                if key.text.is_empty() {
                    tag.warn(report, "the tag has no name", "name it");
                }
                if tag.node.is_null() {
                    tag.refuse(
                        report,
                        "it does not say what to do with the tag",
                        "add `value:`, or `operation: REMOVE`",
                    );
                } else if !tag.has("operation") && tag.text("value").is_empty() {
                    tag.refuse(
                        report,
                        "a tag that is set has a value",
                        "add `value:`, or `operation: REMOVE`",
                    );
                }
            }
        }
    }
    for logging in at.list("accessLogging") {
        if let Some(filter) = logging.get("filter") {
            filter.near("expression").demand(
                report,
                super::expression::cel(filter.text("expression")),
                "write for example `response.code >= 400`",
            );
        }
    }
}

pub(super) fn proxy_config(spec: &Node, report: &mut Report<'_>) {
    selector(spec, "selector", report);
}
