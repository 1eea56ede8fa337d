//! `get`: objects as they are held, and pods as they were reported.

use std::collections::BTreeSet;

use admin::verbs::{Found, Get, OutcomeKind};
use admin::{Failure, Items};
use serde_json::{Value, json};

use super::apply::present;
use super::kinds;
use super::{Desk, hung_up};
use crate::layers::{Held, Key};
use crate::standing::{standing, verdict};
use crate::view::View;

/// Every kind.
const ALL: &str = "all";

pub(super) async fn get(desk: &Desk, asked: &Get, items: &mut Items) -> Result<Value, Failure> {
    let view = desk.view();
    let kinds = match asked.kind.to_lowercase().as_str() {
        ALL => None,
        _ => {
            let kinds = kinds::resolve(&asked.kind, present(&view)).map_err(Failure::usage)?;
            Some(kinds.into_iter().collect::<BTreeSet<_>>())
        }
    };
    let wanted = |group: &str, kind: &str, namespace: &str, name: &str| {
        let fits = |kinds: &BTreeSet<_>| kinds.contains(&(group.to_owned(), kind.to_owned()));
        kinds.as_ref().is_none_or(fits)
            && asked.name.as_deref().is_none_or(|asked| asked == name)
            && (namespace.is_empty() || asked.namespace.as_deref().is_none_or(|asked| asked == namespace))
    };
    let mut any = false;
    for reported in view.frozen.pods() {
        let meta = &reported.pod.metadata;
        if wanted("", "Pod", &meta.namespace, &meta.name) {
            any = true;
            let value = serde_json::from_str(&reported.text).unwrap_or_default();
            items.send(&pod(&value)).await.map_err(|_| hung_up())?;
        }
    }
    let said = desk.server.nodes().borrow().clone();
    for held in view.frozen.sorted() {
        let key = &held.key;
        if wanted(&key.group, &key.kind, &key.namespace, &key.name) && !is_reported(&view, held) {
            any = true;
            let effect = view.effect(&key.reference());
            let nodes = effect
                .as_ref()
                .map(|effect| effect.nodes.as_slice())
                .unwrap_or_default();
            let standing = standing(nodes.iter().map(String::as_str), &view.versions, &said);
            let (result, why) = verdict(
                held,
                view.frozen.profile,
                effect.as_ref(),
                &view.findings(held),
                &standing,
            );
            let found = Found {
                object: held.object.json.clone(),
                result,
                why,
                origin: held.origin(),
            };
            items.send(&found).await.map_err(|_| hung_up())?;
        }
    }
    match &asked.name {
        Some(name) if !any => Err(Failure::no(format!("there is no {} `{name}`", asked.kind))),
        _ => Ok(Value::Null),
    }
}

/// Whether it is a pod that exists, which then is shown as it is, with its status.
fn is_reported(view: &View, held: &Held) -> bool {
    let key = &held.key;
    let there = |key: &Key| view.frozen.pods.get(key.namespace.as_str())?.get(&key.name);
    key.group.is_empty() && key.kind == "Pod" && there(key).is_some()
}

fn pod(value: &Value) -> Found {
    let mut object = value.clone();
    if let Some(map) = object.as_object_mut() {
        map.insert("apiVersion".to_owned(), json!("v1"));
        map.insert("kind".to_owned(), json!("Pod"));
    }
    Found {
        object,
        result: OutcomeKind::Accepted,
        why: Vec::new(),
        origin: String::new(),
    }
}
