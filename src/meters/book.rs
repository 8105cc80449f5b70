//! Makes meters and puts them into the registry, which refuses a name that is there already.

use prometheus::core::Collector;
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry,
};

/// Seconds of what a disk or a database does.
pub const DISK_SECONDS: &[f64] = &[
    0.0001, 0.000_25, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0, 10.0,
];
/// Seconds of what a person waits for.
pub const TRANSFER_SECONDS: &[f64] = &[
    0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0,
];
/// Seconds from a slot to its file, and of silence in between.
pub const LIFE_SECONDS: &[f64] = &[
    1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 21_600.0, 86_400.0, 259_200.0,
];
/// Bytes of a file, by fours: 1 KiB to 4 GiB.
pub const SIZE_BYTES: &[f64] = &[
    1_024.0,
    4_096.0,
    16_384.0,
    65_536.0,
    262_144.0,
    1_048_576.0,
    4_194_304.0,
    16_777_216.0,
    67_108_864.0,
    268_435_456.0,
    1_073_741_824.0,
    4_294_967_296.0,
];
/// How many at once.
pub const COUNTS: &[f64] = &[
    1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0,
];

/// Meters of one name, one for each word of its label, made beforehand: a word that is not among
/// them is counted by the last.
pub struct Words<M>(Vec<(&'static str, M)>);

impl<M> Words<M> {
    fn of(words: &[&'static str], meter: impl Fn(&str) -> M) -> Self {
        Self(words.iter().map(|word| (*word, meter(word))).collect())
    }

    /// The meter of `word`.
    pub fn get(&self, word: &str) -> &M {
        let known = self.0.iter().find(|(known, _)| *known == word);
        let known = known.or(self.0.last());
        &known.expect("a label has words").1
    }
}

/// What is registered so far.
pub struct Book<'r>(pub &'r Registry);

impl Book<'_> {
    /// Registers anything; an error is a fault of the lists below, which a test goes through.
    pub fn add<C: Collector + Clone + 'static>(&self, made: prometheus::Result<C>) -> C {
        let meter = made.expect("good names");
        let added = self.0.register(Box::new(meter.clone()));
        added.expect("a name of its own");
        meter
    }

    /// Registers meters that know their values by themselves.
    pub fn include(&self, meters: impl Collector + 'static) {
        let added = self.0.register(Box::new(meters));
        added.expect("names of their own");
    }

    pub fn counter(&self, name: &str, help: &str) -> IntCounter {
        self.add(IntCounter::new(name, help))
    }

    pub fn counters(&self, name: &str, help: &str, label: &str) -> IntCounterVec {
        self.add(IntCounterVec::new(Opts::new(name, help), &[label]))
    }

    pub fn counters_of(
        &self,
        name: &str,
        help: &str,
        label: &str,
        words: &[&'static str],
    ) -> Words<IntCounter> {
        let counters = self.counters(name, help, label);
        Words::of(words, |word| counters.with_label_values(&[word]))
    }

    /// The same with two labels: by the first one's words in their order, then by the second's.
    pub fn counters_by(
        &self,
        name: &str,
        help: &str,
        (first, firsts): (&str, &[&'static str]),
        (second, seconds): (&str, &[&'static str]),
    ) -> Vec<Words<IntCounter>> {
        let options = Opts::new(name, help);
        let counters = self.add(IntCounterVec::new(options, &[first, second]));
        let of =
            |word: &&str| Words::of(seconds, |other| counters.with_label_values(&[*word, other]));
        firsts.iter().map(of).collect()
    }

    pub fn gauge(&self, name: &str, help: &str) -> IntGauge {
        self.add(IntGauge::new(name, help))
    }

    pub fn gauges(&self, name: &str, help: &str, label: &str) -> IntGaugeVec {
        self.add(IntGaugeVec::new(Opts::new(name, help), &[label]))
    }

    pub fn histogram(&self, name: &str, help: &str, buckets: &[f64]) -> Histogram {
        let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        self.add(Histogram::with_opts(options))
    }

    pub fn histograms_of(
        &self,
        name: &str,
        help: &str,
        buckets: &[f64],
        (label, words): (&str, &[&'static str]),
    ) -> Words<Histogram> {
        let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        let histograms = self.add(HistogramVec::new(options, &[label]));
        Words::of(words, |word| histograms.with_label_values(&[word]))
    }
}
