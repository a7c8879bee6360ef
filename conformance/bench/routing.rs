//! What it costs to find the targets of one message.

use std::hint::black_box;

use criterion::Criterion;
use ternmq::broker::exchange::filter::{Attribute, Policies, Policy, Scope, Subject};
use ternmq::broker::exchange::{Kind, Router, Routing};
use ternmq::broker::value::{Headers, Table, Value};

const TOPIC_BINDINGS: u32 = 10_000;
const HEADERS_BINDINGS: u32 = 1_000;
const FILTERS: usize = 1_000;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    direct(&mut criterion);
    topic(&mut criterion);
    headers(&mut criterion);
    filters(&mut criterion);
    criterion.final_summary();
}

fn router(kind: Kind) -> Router<u32> {
    Router::new(&kind, &Table::new()).expect("a kind without arguments is accepted")
}

fn bind(router: &mut Router<u32>, target: u32, key: &str, arguments: &Table) {
    router.bind(target, key.as_bytes(), arguments).expect("key and arguments are accepted");
}

fn measure(criterion: &mut Criterion, name: &str, router: &Router<u32>, routing: &Routing<'_>, expected: usize) {
    let mut out = Vec::new();
    router.route(routing, &mut out);
    assert_eq!(out.len(), expected, "{name}");
    criterion.bench_function(name, |bencher| {
        bencher.iter(|| {
            out.clear();
            router.route(black_box(routing), &mut out);
            out.len()
        });
    });
}

fn direct(criterion: &mut Criterion) {
    let mut direct = router(Kind::Direct);
    (0..100_000).for_each(|n| bind(&mut direct, n, &format!("orders.{n}"), &Table::new()));
    measure(criterion, "direct/100000 bindings", &direct, &Routing::by_key(b"orders.77777"), 1);
    criterion.bench_function("direct/bind + unbind among 100000", |bencher| {
        bencher.iter(|| {
            bind(&mut direct, 7, "orders.new", &Table::new());
            direct.unbind(&7, b"orders.new", &Table::new())
        });
    });
}

fn topic(criterion: &mut Criterion) {
    let mut wild = router(Kind::Topic);
    for n in 0..TOPIC_BINDINGS {
        let key = match n % 4 {
            0 => format!("region.{n}.created"),
            1 => format!("region.{n}.*"),
            2 => format!("*.{n}.created"),
            _ => format!("region.{n}.#"),
        };
        bind(&mut wild, n, &key, &Table::new());
    }
    measure(criterion, "topic/10000 bindings, literal", &wild, &Routing::by_key(b"region.4444.created"), 1);
    measure(criterion, "topic/10000 bindings, star", &wild, &Routing::by_key(b"region.5001.changed"), 1);
    measure(criterion, "topic/10000 bindings, hash", &wild, &Routing::by_key(b"region.5003.a.b.c"), 1);
    measure(criterion, "topic/10000 bindings, none", &wild, &Routing::by_key(b"nobody.asked.for.this"), 0);

    let mut hashes = router(Kind::Topic);
    for n in 0..TOPIC_BINDINGS {
        bind(&mut hashes, n, &format!("#.{}.#.{}", n / 100, n % 100), &Table::new());
    }
    measure(criterion, "topic/10000 bindings of two hashes", &hashes, &Routing::by_key(b"a.17.b.c.42"), 1);

    let mut hostile = router(Kind::Topic);
    for n in 0..100 {
        bind(&mut hostile, n, &format!("{}.b{n}", vec!["#.a"; 60].join(".")), &Table::new());
    }
    let key = vec!["a"; 120].join(".");
    measure(criterion, "topic/120 words on 60 hashes", &hostile, &Routing::by_key(key.as_bytes()), 0);
}

fn headers(criterion: &mut Criterion) {
    let encoded = |entries: &[(&str, Value)]| {
        let mut bytes = Vec::new();
        entries.iter().map(|(name, value)| (*name, value.clone())).collect::<Table>().encode(&mut bytes);
        bytes
    };
    let bytes = encoded(&[
        ("kind", Value::text("order")),
        ("region", Value::I32(444)),
        ("trace", Value::text("00-4bf92f3577b34da6a3ce929d0e0e4736")),
    ]);
    let routing = Routing { headers: Headers::new(&bytes), ..Routing::by_key(b"") };
    for how in ["all", "any"] {
        let mut by_headers = router(Kind::Headers);
        for n in 0..HEADERS_BINDINGS {
            let arguments = [
                ("x-match", Value::text(how)),
                ("kind", Value::text(if how == "all" { "order".to_owned() } else { format!("kind-{n}") })),
                ("region", Value::U32(n)),
            ];
            bind(&mut by_headers, n, "", &arguments.into_iter().collect());
        }
        measure(criterion, &format!("headers/1000 bindings, {how}"), &by_headers, &routing, 1);
    }
}

/// A topic with a thousand subscriptions, each with a filter of its own.
fn filters(criterion: &mut Criterion) {
    let attributes = [
        ("all match, one number each", r#"{"kind":["order"],"size":[{"numeric":["<",5000N]}]}"#, FILTERS),
        (
            "all match, five conditions",
            r#"{"kind":["order"],"size":[{"numeric":["<",5000N]}],"region":[{"prefix":"eu-"}],"store":[{"anything-but":["sN"]}],"gone":[{"exists":false}]}"#,
            FILTERS,
        ),
        ("one matches, exact", r#"{"kind":["order"],"store":["store-N"]}"#, 1),
        ("one matches, wildcard", r#"{"kind":["order"],"store":[{"wildcard":"*-N"}]}"#, 1),
    ];
    let body = br#"{"kind":"order","size":17,"store":"store-77","region":"eu-west-1","items":[{"sku":"a-1","count":1},{"sku":"b-2","count":5}],"note":"left at the door"}"#;
    let subject = Subject::new(body)
        .with("kind", Attribute::Text("order"))
        .with("size", Attribute::Number("17"))
        .with("store", Attribute::Text("store-77"))
        .with("region", Attribute::Text("eu-west-1"));
    for scope in [Scope::Attributes, Scope::Body] {
        for (name, text, expected) in attributes {
            filter(criterion, &format!("filter/1000 {}, {name}", scope.name()), text, scope, &subject, expected);
        }
    }
    let text = r#"{"items":{"sku":[{"prefix":"b-"}],"count":[{"numeric":[">",2,"<",5000N]}]}}"#;
    filter(criterion, "filter/1000 MessageBody, all match in arrays", text, Scope::Body, &subject, FILTERS);
}

fn filter(criterion: &mut Criterion, name: &str, text: &str, scope: Scope, subject: &Subject<'_>, expected: usize) {
    let mut policies = Policies::default();
    for n in 0..FILTERS {
        let policy = Policy::parse(&text.replace('N', &n.to_string()), scope).expect("a policy");
        policies.add(&n, Some(&policy));
    }
    let mut out = Vec::new();
    policies.route(subject, &mut out);
    assert_eq!(out.len(), expected, "{name}");
    criterion.bench_function(name, |bencher| {
        bencher.iter(|| {
            out.clear();
            policies.route(black_box(subject), &mut out);
            out.len()
        });
    });
}
