//! `top`: who calls whom, how often, how fast, and what is refused. Read from the proxies' metrics, so that looking costs the
//! traffic nothing.

mod flows;

use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use self::flows::{Flow, Totals};
use crate::args::{Sort, Top};
use crate::mesh::{Mesh, last};
use crate::out::{Done, Out, Stop};
use crate::table::{Cell, Mood, Table};
use crate::text::clean;

/// Homes the cursor and clears what is below.
const HOME: &str = "\u{1b}[H\u{1b}[J";

pub(crate) async fn top(mesh: &Mesh, asked: &Top, out: &mut Out) -> Done {
    let interval = Duration::from_millis(asked.interval.max(100));
    let nodes = mesh.nodes(None).await?;
    let (mut before, missed) = totals(mesh, &nodes).await?;
    let mut told = missed;
    let mut begin = Instant::now();
    for why in &told {
        out.error(why);
    }
    loop {
        tokio::time::sleep(interval).await;
        let (now, missed) = totals(mesh, &nodes).await?;
        let seconds = begin.elapsed().as_secs_f64();
        begin = Instant::now();
        let mut flows = now.since(&before, seconds);
        flows.retain(|flow| flow.is_asked_for(asked.namespace.as_deref()));
        sort(&mut flows, asked.sort);
        before = now;
        if asked.output.is_some() {
            let value = json!({ "intervalS": seconds, "flows": flows });
            match asked.once {
                true => out.json(&value)?,
                false => out.json_line(&value)?,
            }
        } else {
            let text = screen(&flows, seconds, out.colour);
            let live = !asked.once && out.is_terminal();
            out.print(&format!("{}{text}", if live { HOME } else { "" }))?;
        }
        for why in missed.iter().filter(|why| !told.contains(why)) {
            out.error(why);
        }
        let code = if missed.is_empty() { 0 } else { 2 };
        told = missed;
        if asked.once {
            return Ok(code);
        }
    }
}

/// What all nodes' proxies have counted so far, and which of them do not answer.
async fn totals(mesh: &Mesh, nodes: &[String]) -> Result<(Totals, Vec<String>), Stop> {
    let (mut totals, mut missed) = (Totals::default(), Vec::new());
    for node in nodes {
        let told: Result<String, Stop> = match mesh.proxy(node, "metrics", &()).await {
            Ok(answer) => last(answer).await,
            Err(stop) => Err(stop),
        };
        match told {
            Ok(text) => totals.add(&text),
            Err(Stop::Failed(failure)) => missed.push(failure.message),
            Err(gone @ Stop::Gone) => return Err(gone),
        }
    }
    Ok((totals, missed))
}

fn sort(flows: &mut [Flow], by: Sort) {
    let key = |flow: &Flow| match by {
        Sort::Rate => flow.rate + flow.connections,
        Sort::Denied => flow.denied,
        Sort::Errors => flow.errors,
        Sort::P99 => flow.p99_ms.unwrap_or(0.0),
        Sort::Bytes => flow.bytes,
    };
    // Greatest first; of the same by name.
    flows.sort_by(|a, b| key(b).total_cmp(&key(a)).then_with(|| a.name().cmp(&b.name())));
}

fn screen(flows: &[Flow], seconds: f64, colour: bool) -> String {
    let sum = |of: fn(&Flow) -> f64| flows.iter().map(of).sum::<f64>();
    let head = format!(
        "{} a second carried, {} refused, over {seconds:.1} s\n",
        rate(sum(|flow| flow.rate + flow.connections)),
        rate(sum(|flow| flow.denied)),
    );
    if flows.is_empty() {
        return format!("{head}nothing is called\n");
    }
    format!("{head}\n{}", table(flows).render(colour))
}

fn table(flows: &[Flow]) -> Table {
    let mut table = Table::new([
        "CALLER", "CALLEE", "PROTOCOL", "WIRE", "RATE/S", "P50", "P99", "5XX/S", "DENIED/S", "BYTES/S",
    ]);
    for flow in flows {
        let bad = |value: f64| match value > 0.0 {
            true => Cell::new(rate(value), Mood::Bad),
            false => Cell::new(rate(value), Mood::Plain),
        };
        let wire = match flow.security.as_str() {
            "mutual_tls" => Cell::new("mtls", Mood::Good),
            _ => Cell::new("plaintext", Mood::Warning),
        };
        table.row(vec![
            clean(&flow.caller()).as_ref().into(),
            clean(&flow.callee()).as_ref().into(),
            flow.protocol.as_str().into(),
            wire,
            rate(flow.rate + flow.connections).into(),
            millis(flow.p50_ms).into(),
            millis(flow.p99_ms).into(),
            bad(flow.errors),
            bad(flow.denied),
            bytes(flow.bytes).into(),
        ]);
    }
    table
}

fn rate(value: f64) -> String {
    match value {
        0.0 => "0".to_owned(),
        v if v < 10.0 => format!("{v:.1}"),
        v => format!("{v:.0}"),
    }
}

fn millis(value: Option<f64>) -> String {
    match value {
        None => "-".to_owned(),
        Some(ms) if ms < 10.0 => format!("{ms:.1}ms"),
        Some(ms) if ms < 1000.0 => format!("{ms:.0}ms"),
        Some(ms) => format!("{:.1}s", ms / 1000.0),
    }
}

fn bytes(value: f64) -> String {
    match value {
        v if v < 1024.0 => format!("{v:.0}"),
        v if v < 1024.0 * 1024.0 => format!("{:.1}Ki", v / 1024.0),
        v => format!("{:.1}Mi", v / (1024.0 * 1024.0)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_for_each_pair_the_busiest_first() {
        let text = |requests: u32, denied: u32| {
            let labels = |caller: &str| {
                format!(
                    "reporter=\"destination\",source_workload=\"{caller}\",source_workload_namespace=\"full\",destination_workload=\"httpbin\",destination_workload_namespace=\"full\",destination_service=\"httpbin.full.svc.cluster.local\",request_protocol=\"http\",response_code=\"200\",connection_security_policy=\"mutual_tls\""
                )
            };
            format!(
                "istio_requests_total{{{}}} {requests}\nmeshward_denied_total{{{}}} {denied}\nistio_requests_total{{{}}} {}\n",
                labels("sleep"),
                labels("sleep"),
                labels("busy"),
                requests * 10
            )
        };
        let (mut before, mut now) = (Totals::default(), Totals::default());
        before.add(&text(0, 0));
        now.add(&text(4, 1));
        let mut flows = now.since(&before, 2.0);
        sort(&mut flows, Sort::Rate);
        assert_eq!(
            table(&flows).render(false),
            "CALLER      CALLEE                          PROTOCOL  WIRE  RATE/S  P50  P99  5XX/S  DENIED/S  BYTES/S\n\
             full/busy   httpbin.full.svc.cluster.local  http      mtls  20      -    -    0      0         0\n\
             full/sleep  httpbin.full.svc.cluster.local  http      mtls  2.0     -    -    0      0.5       0\n"
        );
        sort(&mut flows, Sort::Denied);
        assert_eq!(flows[0].caller(), "full/sleep");
        assert!(screen(&[], 1.0, false).contains("nothing is called"));
    }
}
