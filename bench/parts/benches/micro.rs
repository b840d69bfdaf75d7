//! How long the parts of the sidecar take by themselves: the hot path of a request, minting a leaf, and reading routes.
//!
//! `cargo bench -p egress-parts --bench micro [FILTER]` runs them.

use std::cell::Cell;
use std::num::NonZeroUsize;
use std::path::Path;
use std::time::SystemTime;

use divan::Bencher;
use egress::config;
use egress_ca::{Constraints, Issuer, Root};

mod hot;
mod inputs;

fn main() {
    divan::main();
}

/// What each request passes through. A sample is of a hundred turns: one alone is hardly longer than a look at the clock.
#[divan::bench_group(sample_size = 100)]
mod request {
    use std::cell::Cell;

    use divan::Bencher;
    use divan::counter::BytesCount;

    use crate::hot::{Decide, Inject, Mask, Piece, ReadTarget, Strip};
    use crate::inputs::{LONG, PIECE, SHORT};

    #[divan::bench]
    fn read_target_http1(bencher: Bencher) {
        time(bencher, &ReadTarget::http1());
    }

    #[divan::bench]
    fn read_target_http2(bencher: Bencher) {
        time(bencher, &ReadTarget::http2());
    }

    #[divan::bench(args = [10, 1_000, 100_000])]
    fn decide(bencher: Bencher, routes: usize) {
        time(bencher, &Decide::among(routes));
    }

    #[divan::bench]
    fn strip(bencher: Bencher) {
        time(bencher, &Strip::new());
    }

    #[divan::bench]
    fn inject(bencher: Bencher) {
        time(bencher, &Inject::new());
    }

    #[divan::bench(args = [SHORT, LONG])]
    fn mask_json(bencher: Bencher, credential: usize) {
        let bencher = bencher.counter(BytesCount::new(PIECE));
        time(bencher, &Mask::json(credential));
    }

    #[divan::bench(args = [SHORT, LONG])]
    fn mask_noise(bencher: Bencher, credential: usize) {
        let bencher = bencher.counter(BytesCount::new(PIECE));
        time(bencher, &Mask::noise(credential));
    }

    fn time<P: Piece>(bencher: Bencher, piece: &P) {
        let turn = Cell::new(0);
        bencher
            .with_inputs(|| piece.input(turn.replace(turn.get() + 1)))
            .bench_local_values(|input| piece.run(input));
    }
}

/// A leaf for a host that nobody asked for before.
#[divan::bench(sample_size = 10)]
fn mint(bencher: Bencher) {
    let (issuer, turn) = (issuer(), Cell::new(0));
    bencher
        .with_inputs(|| format!("service-{}.example.com", turn.replace(turn.get() + 1)))
        .bench_local_refs(|host| {
            issuer
                .server_config(host, SystemTime::now())
                .expect("a leaf")
        });
}

/// The leaf of a host whose tunnels came before.
#[divan::bench(sample_size = 100)]
fn find_leaf(bencher: Bencher) {
    let issuer = issuer();
    bencher.bench_local(|| {
        issuer
            .server_config(inputs::HOST, SystemTime::now())
            .expect("a leaf")
    });
}

/// A whole file, up to where only its slots are left to be looked for.
#[divan::bench(args = [10, 1_000, 100_000], sample_count = 5, sample_size = 1)]
fn read_routes(bencher: Bencher, routes: usize) {
    let text = inputs::routes_file(routes);
    bencher.bench_local(|| config::parse("routes.yaml", &text, Path::new(".")).expect("no faults"));
}

fn issuer() -> Issuer {
    let root = Root::ephemeral(&Constraints::None).expect("a root");
    let capacity = NonZeroUsize::new(1024).expect("not none");
    Issuer::new(root, capacity).expect("an issuer")
}
