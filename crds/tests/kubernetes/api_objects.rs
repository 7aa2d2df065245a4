//! The objects of the API document, asked of an API server: the list that the directory is asked, too.

use std::collections::BTreeMap;

use kube::core::Status;
use kube::{Client, Error};
use manx_crds::v1alpha1::crds;
use serde_json::{Value, json};

use super::api::{Case, Printer, Step, UPSTREAM, Verdict, cases};

/// Where the objects of a kind are, and whether in namespaces.
fn places() -> BTreeMap<String, (String, bool)> {
    crds()
        .unwrap()
        .iter()
        .map(|crd| {
            let of = |pointer: &str| crd.pointer(pointer).unwrap().as_str().unwrap().to_owned();
            (of("/spec/names/kind"), (of("/spec/names/plural"), of("/spec/scope") == "Namespaced"))
        })
        .collect()
}

/// Anything but a verdict ends the test.
async fn ask(client: &Client, method: &str, path: &str, body: Vec<u8>) -> Result<Value, Box<Status>> {
    let request =
        http::Request::builder().method(method).uri(path).header("Content-Type", "application/json");
    match client.request::<Value>(request.body(body).unwrap()).await {
        Ok(answer) => Ok(answer),
        Err(Error::Api(status)) => Err(status),
        Err(other) => panic!("{method} {path}: {other}"),
    }
}

/// Everything that the server says against an object, as `field: text`, one a cause.
fn texts(status: &Status) -> Vec<String> {
    let causes = status.details.iter().flat_map(|details| &details.causes);
    let causes: Vec<String> = causes.map(|cause| format!("{}: {}", cause.field, cause.message)).collect();
    if causes.is_empty() { vec![status.message.clone()] } else { causes }
}

/// What the texts of this server may be. `exact`: it is of the version whose texts the list holds.
fn expected(case: &Case, server: &str, exact: bool) -> Vec<String> {
    if let Some(path) = server.strip_suffix(": Invalid value: \"\": unknown field") {
        return vec![format!("unknown field {path:?}")];
    }
    let mut all = vec![server.to_owned()];
    if !exact {
        all.extend(case.text(Printer::Directory));
        // API server 1.36 names types as its own language does, and an integer's format for its type.
        all.push(server.replace("\"number\"", "\"float64\"").replace("of type integer", "of type int32"));
    }
    all
}

async fn run(case: &Case, places: &BTreeMap<String, (String, bool)>, client: &Client, exact: bool) {
    let title = &case.title;
    let (plural, namespaced) = &places[&case.kind];
    let all = match &case.namespace {
        Some(namespace) if *namespaced => format!("/apis/manx.dev/v1alpha1/namespaces/{namespace}/{plural}"),
        Some(_) | None => format!("/apis/manx.dev/v1alpha1/{plural}"),
    };
    let one = format!("{all}/{}", case.name);
    let mut object = case.object.clone();
    let outcome = match case.step {
        Step::Create => {
            if let Err(status) = ask(client, "DELETE", &one, Vec::new()).await {
                assert_eq!(status.code, 404, "{title}: {status:?}");
            }
            let body = serde_json::to_vec(&object).unwrap();
            ask(client, "POST", &format!("{all}?fieldValidation=Strict"), body).await
        }
        Step::Update => {
            let held = ask(client, "GET", &one, Vec::new()).await.unwrap();
            object["metadata"]["resourceVersion"] = held["metadata"]["resourceVersion"].clone();
            let body = serde_json::to_vec(&object).unwrap();
            ask(client, "PUT", &format!("{one}?fieldValidation=Strict"), body).await
        }
    };
    match (&case.verdict, outcome) {
        (Verdict::Accepted, Ok(_)) => {}
        (Verdict::Accepted, Err(status)) => panic!("{title} is refused: {:?}", texts(&status)),
        (Verdict::Refused { want, .. }, Ok(_)) => panic!("{title} is not refused: {want}"),
        (Verdict::Refused { want, server }, Err(status)) => {
            let said = texts(&status);
            let unknown_field = server.ends_with("unknown field");
            assert!(
                unknown_field || said.iter().any(|text| text.contains(want)),
                "{title}: {said:?}, not {want:?}"
            );
            let expected = expected(case, server, exact);
            let found = said.iter().any(|text| expected.iter().any(|wanted| text == wanted))
                || unknown_field && said.iter().any(|text| text.contains(&expected[0]));
            assert!(found, "{title}: {said:?}, not {expected:?}");
        }
    }
}

/// How many were accepted and refused, for people.
pub async fn every_object_gets_its_verdict(client: Client, exact: bool) -> (usize, usize) {
    let places = places();
    let (mut accepted, mut refused, mut upstream) = (0, 0, Vec::new());
    for case in cases() {
        if !places.contains_key(&case.kind) {
            upstream.push(case.kind);
            continue;
        }
        if let Some(namespace) = &case.namespace {
            let body = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}});
            if let Err(status) =
                ask(&client, "POST", "/api/v1/namespaces", serde_json::to_vec(&body).unwrap()).await
            {
                assert_eq!(status.reason, "AlreadyExists", "{status:?}");
            }
        }
        run(&case, &places, &client, exact).await;
        match case.verdict {
            Verdict::Accepted => accepted += 1,
            Verdict::Refused { .. } => refused += 1,
        }
    }
    assert_eq!((accepted, refused), (29, 67));
    assert_eq!(upstream, UPSTREAM);
    (accepted, refused)
}
