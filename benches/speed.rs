//! Wall time of the hot operations, for people. CI gates on instructions instead: see `icount.rs`.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};

mod scenarios;

fn speed(criterion: &mut Criterion) {
    for scenario in scenarios::all() {
        let mut group = criterion.benchmark_group("speed");
        group.throughput(Throughput::Elements(scenario.operations));
        let mut run = (scenario.build)();
        group.bench_function(scenario.name, |bencher| bencher.iter(&mut run));
        group.finish();
    }
}

criterion_group!(benches, speed);
criterion_main!(benches);
