//! Metrics in Prometheus' text format.
//!
//! Everything that is counted is there, under names made by its conventions (base units, `_total` for
//! what only grows), with the help text of the counter:
//!
//! | what | metrics |
//! |---|---|
//! | requests | `barewire_http_requests_total{core,route,code}`, `barewire_http_request_duration_seconds{core,route}` (a histogram; see [`barewire_http::Durations`] for what is measured), `barewire_http_refusals_total{core,reason}` |
//! | events | `barewire_events_counted_total{core}`, `barewire_events_refusals_total{core,reason}`, `barewire_events_unique_users` |
//! | connections | `barewire_connections{core,state}` |
//! | supplies | `barewire_pool_used{core,queue,pool}`, `barewire_pool_max{core,queue,pool}` |
//! | XDP program | `barewire_xdp_frames_total{verdict}` |
//! | frames that were no segments | `barewire_discards_total{core,reason}` |
//! | the rest | `barewire_PART_NAME[_total]{core,queue}`, as `barewire_tcp_listen_overflows_total` |

use std::collections::HashMap;

use barewire_service::counters::{Kind, Sample};
use prometheus::TextEncoder;
use prometheus::proto::{
    Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType,
};

use super::instruments::{Instruments, Reading, is_state};
use super::status::Status;
use barewire_http::{BOUNDS_NS, HttpCounters, RouteCounters, Status as Code};

/// The media type of what [`encode`] returns.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// All metrics of a server as of now.
pub fn encode(instruments: &Instruments) -> String {
    let mut families = Families::default();
    server(&mut families, &instruments.read());
    let readings = instruments.readings();
    for reading in &readings {
        for sample in &reading.samples {
            families.sample(reading, sample);
        }
    }
    for (core, http) in instruments.http().enumerate() {
        requests(&mut families, core, http);
    }
    // Fails only for families without a name or without metrics, of which there are none.
    TextEncoder::new()
        .encode_to_string(&families.list)
        .unwrap_or_default()
}

fn server(families: &mut Families, status: &Status) {
    let server = &status.server;
    let labels = [
        ("version", server.version.clone()),
        ("stack", server.stack.clone()),
    ];
    families.gauge(
        "build_info",
        "Version and network stack; always 1.",
        &labels,
        1.0,
    );
    families.gauge(
        "start_time_seconds",
        "When the server started, since 1970.",
        &[],
        server.started_unix_s as f64,
    );
    let is_serving = server.state == super::status::State::Serving;
    families.gauge(
        "serving",
        "1 while the server accepts connections, 0 when it drains.",
        &[],
        f64::from(u8::from(is_serving)),
    );
    families.gauge(
        "events_unique_users",
        "Different users of the events counted since the last reset.",
        &[],
        status.stats.unique_users as f64,
    );
    let memory = [
        ("resident", status.memory.resident_bytes),
        ("huge_pages", status.memory.huge_page_bytes),
        ("locked", status.memory.locked_bytes),
    ];
    for (kind, bytes) in memory {
        if let Some(bytes) = bytes {
            let labels = [("kind", kind.to_owned())];
            families.gauge(
                "memory_bytes",
                "Memory of the process.",
                &labels,
                bytes as f64,
            );
        }
    }
}

fn requests(families: &mut Families, core: usize, http: &HttpCounters) {
    for route in http.routes() {
        let labels = [
            ("core", core.to_string()),
            ("route", route.path().unwrap_or("none").to_owned()),
        ];
        for &code in Code::ALL {
            let count = route.responses(code);
            // Those that every route has are there from the start, so that rates begin at zero.
            if count == 0 && (code != Code::Ok || route.path().is_none()) {
                continue;
            }
            let mut labels = labels.to_vec();
            labels.push(("code", code.code().to_string()));
            families.counter(
                "http_requests_total",
                "Requests answered, by route and status code.",
                &labels,
                count as f64,
            );
        }
        let metric = families.metric(
            "http_request_duration_seconds",
            "From the start of the batch in which a request began to the hand-over of its reply to the network.",
            MetricType::HISTOGRAM,
            &labels,
        );
        metric.set_histogram(histogram(route));
    }
}

impl Reading {
    /// The same labels for every pool: an empty one is as good as none.
    fn pool_labels(&self, pool: String) -> [(&'static str, String); 3] {
        let core = self.core.map(|core| core.to_string());
        let queue = self.queue.map(|queue| queue.to_string());
        [
            ("core", core.unwrap_or_default()),
            ("queue", queue.unwrap_or_default()),
            ("pool", pool),
        ]
    }
}

fn histogram(route: &RouteCounters) -> Histogram {
    let reading = route.durations().read();
    let mut cumulative = 0;
    let buckets = BOUNDS_NS.iter().zip(reading.buckets).map(|(bound, count)| {
        cumulative += count;
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(*bound as f64 / 1e9);
        bucket.set_cumulative_count(cumulative);
        bucket
    });
    let mut histogram = Histogram::default();
    histogram.set_bucket(buckets.collect());
    histogram.set_sample_count(reading.buckets.iter().sum());
    histogram.set_sample_sum(reading.sum_ns as f64 / 1e9);
    histogram
}

type Labels = [(&'static str, String)];

/// Metrics in the order in which they were first named.
#[derive(Default)]
struct Families {
    list: Vec<MetricFamily>,
    index: HashMap<String, usize>,
}

impl Families {
    /// One counter or level of the stack, the responder or the events.
    fn sample(&mut self, reading: &Reading, sample: &Sample) {
        let Sample { name, help, .. } = *sample;
        let part = reading.part;
        let value = sample.value as f64;
        let mut labels = Vec::new();
        labels.extend(reading.core.map(|core| ("core", core.to_string())));
        labels.extend(reading.queue.map(|queue| ("queue", queue.to_string())));
        let mut with = |label, value: &str| {
            labels.push((label, value.to_owned()));
            std::mem::take(&mut labels)
        };
        match (part, sample.kind) {
            // By route, too: see `requests`.
            ("http", _) if name.starts_with("responses_") => {}
            ("http" | "events", _) if name.starts_with("refused_") => {
                let labels = with("reason", name.trim_start_matches("refused_"));
                self.counter(
                    &format!("{part}_refusals_total"),
                    "Requests refused, by reason.",
                    &labels,
                    value,
                );
            }
            ("discards", _) => {
                let labels = with("reason", name.trim_start_matches("discard_"));
                self.counter(
                    "discards_total",
                    "Frames that were no segments for us, by reason.",
                    &labels,
                    value,
                );
            }
            ("redirect", _) => {
                let labels = with("verdict", name);
                self.counter(
                    "xdp_frames_total",
                    "Frames that the XDP program saw, by what it did with them.",
                    &labels,
                    value,
                );
            }
            (_, kind) if is_state(kind) => {
                let labels = with("state", name);
                self.gauge("connections", "Connections, by state.", &labels, value);
            }
            (_, Kind::Limit) => {
                let limited = sample.limited().unwrap_or(name);
                let labels = reading.pool_labels(format!("{part}_{limited}"));
                self.gauge(
                    "pool_max",
                    "How much of a limited supply there is.",
                    &labels,
                    value,
                );
            }
            (_, Kind::Gauge) if reading.has_limit(name) => {
                let labels = reading.pool_labels(format!("{part}_{name}"));
                self.gauge(
                    "pool_used",
                    "How much of a limited supply is in use.",
                    &labels,
                    value,
                );
            }
            (_, kind) if !kind.grows() => {
                self.gauge(&format!("{part}_{name}"), help, &labels, value)
            }
            _ => match name.strip_suffix("_ns") {
                Some(name) => {
                    let help = help.replace("Nanoseconds", "Seconds");
                    self.counter(
                        &format!("{part}_{name}_seconds_total"),
                        &help,
                        &labels,
                        value / 1e9,
                    );
                }
                None => self.counter(&format!("{part}_{name}_total"), help, &labels, value),
            },
        }
    }

    fn counter(&mut self, name: &str, help: &str, labels: &Labels, value: f64) {
        let mut counter = Counter::default();
        counter.set_value(value);
        self.metric(name, help, MetricType::COUNTER, labels)
            .set_counter(counter);
    }

    fn gauge(&mut self, name: &str, help: &str, labels: &Labels, value: f64) {
        let mut gauge = Gauge::default();
        gauge.set_value(value);
        self.metric(name, help, MetricType::GAUGE, labels)
            .set_gauge(gauge);
    }

    /// A new metric with these labels in the family `barewire_{name}`.
    fn metric(&mut self, name: &str, help: &str, kind: MetricType, labels: &Labels) -> &mut Metric {
        let list = &mut self.list;
        let index = *self.index.entry(name.to_owned()).or_insert_with(|| {
            let mut family = MetricFamily::default();
            family.set_name(format!("barewire_{name}"));
            family.set_help(help.to_owned());
            family.set_field_type(kind);
            list.push(family);
            list.len() - 1
        });
        let pair = |(name, value): &(&str, String)| {
            let mut pair = LabelPair::default();
            pair.set_name((*name).to_owned());
            pair.set_value(value.clone());
            pair
        };
        let metrics = list[index].mut_metric();
        metrics.push(Metric::from_label(labels.iter().map(pair).collect()));
        let last = metrics.len() - 1;
        &mut metrics[last]
    }
}
