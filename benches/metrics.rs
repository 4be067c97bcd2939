//! A scrape of `/metrics` with 1,000 endpoints and a real worker: gathered and written. The bar is 20 ms.

#![allow(clippy::unwrap_used, reason = "a bench fails by panicking")]
#![allow(missing_docs, reason = "criterion's macro makes an undocumented function")]

use std::hint::black_box;
use std::path::PathBuf;

use criterion::{Criterion, criterion_group, criterion_main};
use wharf::api::metrics::render;
use wharf::attach::protocol::AttachRequest;
use wharf::config::Guise;
use wharf::control::config::{Config, Paths};
use wharf::control::model::NetworkSpec;
use wharf::control::netstate::SystemHost;
use wharf::control::outside::NoKeeper;
use wharf::control::sharing::Sharing;
use wharf::control::store::memory::MemoryStore;
use wharf::control::workers::Workers;
use wharf::control::{Control, Outside, Settings};

const ENDPOINTS: usize = 1_000;

fn control() -> Control {
    let (workers, _, _) = Workers::start(1).unwrap();
    let nowhere = PathBuf::new;
    let settings = Settings {
        config: Config { default_uplink: Some("none".to_owned()), ..Config::default() },
        paths: Paths { runtime_dir: nowhere(), state_dir: nowhere(), config_file: nowhere() },
        clock: || 0,
        queues: 1,
        guise: Guise::default(),
    };
    let outside = Outside {
        store: Box::<MemoryStore>::default(),
        dataplane: Box::new(workers),
        keeper: Box::new(NoKeeper),
        host: Box::new(SystemHost { queues: 1, sharing: Sharing::nowhere() }),
    };
    let mut control = Control::new(settings, outside).unwrap();
    let subnets = vec!["10.99.0.0/16".parse().unwrap(), "fd99::/64".parse().unwrap()];
    control.create_network(&NetworkSpec { subnets, ..NetworkSpec::named("crowd") }).unwrap();
    for n in 0..ENDPOINTS {
        let name = Some(format!("container-{n}"));
        let request = AttachRequest { name, ..AttachRequest::new("crowd", "eth0") };
        control.attach(&request, Vec::new()).unwrap();
    }
    control
}

fn scrape(c: &mut Criterion) {
    let control = control();
    let text = render(&control.metrics().unwrap());
    println!("{ENDPOINTS} endpoints: {} lines, {} bytes", text.lines().count(), text.len());
    c.bench_function("scrape of 1,000 endpoints", |b| {
        b.iter(|| black_box(render(&control.metrics().unwrap())));
    });
    c.bench_function("of which the worker is asked", |b| {
        b.iter(|| black_box(control.stats().unwrap()));
    });
}

criterion_group!(benches, scrape);
criterion_main!(benches);
