//! What a lookup costs, with 1, 1,000 and 1,000,000 entries of each policy.
//!
//! Method: the URIs looked up go through the whole range in a scattered order, so that caches hold the upper parts of an
//! index only, as in a router.
#![allow(missing_docs, reason = "made by a macro of the bench harness")]

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use weald_router::registry::pattern::{Index, MatchPolicy};

/// Steps from one URI to the next; a prime, so that all are met.
const STRIDE: usize = 514_229;

/// URIs prepared for a measurement.
const URIS: usize = 1 << 16;

fn parts(n: usize) -> (usize, usize, usize) {
    (n / 10_000, n / 100 % 100, n % 100)
}

fn pattern(policy: MatchPolicy, n: usize) -> String {
    let (app, service, item) = parts(n);
    match policy {
        MatchPolicy::Exact => format!("com.app{app}.service{service}.item{item}"),
        MatchPolicy::Prefix => format!("com.app{app}.service{service}.item{item}."),
        MatchPolicy::Wildcard => format!("com.app{app}..service{service}.item{item}"),
    }
}

fn uri(policy: MatchPolicy, n: usize) -> String {
    let (app, service, item) = parts(n);
    match policy {
        MatchPolicy::Exact => pattern(policy, n),
        MatchPolicy::Prefix => format!("com.app{app}.service{service}.item{item}.get"),
        MatchPolicy::Wildcard => format!("com.app{app}.tenant.service{service}.item{item}"),
    }
}

fn lookups(c: &mut Criterion) {
    let mut group = c.benchmark_group("lookup");
    for policy in [MatchPolicy::Exact, MatchPolicy::Prefix, MatchPolicy::Wildcard] {
        for entries in [1, 1_000, 1_000_000] {
            let mut index = Index::default();
            for n in 0..entries {
                let put = index.insert(policy, pattern(policy, n).into(), n);
                assert_eq!(put, Ok(None));
            }
            let uris: Vec<_> = (0..URIS).map(|i| uri(policy, i * STRIDE % entries)).collect();
            assert!(uris.iter().all(|uri| index.best(uri, |_| true).is_some()));
            let name = policy.name();
            let mut at = 0;
            let mut next = || {
                at = (at + 1) % URIS;
                uris[at].as_str()
            };
            group.bench_function(BenchmarkId::new(format!("best/{name}"), entries), |b| {
                b.iter(|| black_box(index.best(next(), |_| true)));
            });
            group.bench_function(BenchmarkId::new(format!("all/{name}"), entries), |b| {
                b.iter(|| {
                    let mut sum = 0;
                    index.all(next(), |_, value| sum += value);
                    black_box(sum)
                });
            });
        }
    }
}

criterion_group!(benches, lookups);
criterion_main!(benches);
