//! Checks `[http]` and the limits of its traffic.

use std::time::Duration;

use super::{ANY, Checker, HOUR, SECOND, missing};
use crate::config::error::Key;
use crate::config::raw::{RawHttp, RawLimits, RawTls};
use crate::config::{Http, Limits, Listen, Tls, TokenIn, value};
use crate::core::accel::Accel;
use crate::core::rate::Rate;

impl Checker {
    pub(super) fn http(&mut self, raw: &RawHttp) -> Option<Http> {
        let listen = self.list("http.listen", &raw.listen, value::listen);
        if raw.listen.is_empty() {
            self.refuse("http.listen", "names no socket", "try [\"127.0.0.1:5050\"]");
        }
        let public_url = self.take(
            "http.public_url",
            match &raw.public_url {
                Some(url) => value::public_url(url, raw.insecure),
                None => Err(missing("http", "public_url", "https://upload.example.org/")),
            },
        );
        if public_url
            .as_deref()
            .is_some_and(|url| url.starts_with("http://"))
        {
            let words = "http:// shows every link and token to whoever sees the traffic";
            self.warn("http.public_url", words);
        }
        let trusted_proxies = self.list("http.trusted_proxies", &raw.trusted_proxies, value::proxy);
        if raw.proxy_forwards_1xx && raw.trusted_proxies.is_empty() {
            let words = "changes nothing without http.trusted_proxies";
            self.warn("http.proxy_forwards_1xx", words);
        }
        let token_in = self.take(
            "http.token_in",
            value::word(
                &raw.token_in,
                &[("url", TokenIn::Url), ("header", TokenIn::Header)],
            ),
        );
        let accel = self.accel(raw, listen.as_deref().unwrap_or_default());
        let tls = match &raw.tls {
            Some(tls) => self.tls(tls).map(Some),
            None => Some(None),
        };
        Some(Http {
            listen: listen.filter(|list| !list.is_empty())?,
            public_url: public_url?,
            trusted_proxies: trusted_proxies?,
            proxy_forwards_1xx: raw.proxy_forwards_1xx,
            token_in: token_in?,
            accel: accel?,
            tls: tls?,
        })
    }

    /// Who sends downloads: only a proxy that is believed is told where the files are.
    fn accel(&mut self, raw: &RawHttp, listen: &[Listen]) -> Option<Accel> {
        let location = value::location(&raw.accel_location);
        let location = self.take("http.accel_location", location)?;
        let words = &[
            ("none", Accel::Off),
            ("x-accel-redirect", Accel::XAccelRedirect { location }),
            ("x-sendfile", Accel::XSendfile),
        ];
        let accel = self.take("http.accel", value::word(&raw.accel, words))?;
        let is_unix = |socket: &Listen| matches!(socket, Listen::Unix(_));
        let has_proxy = !raw.trusted_proxies.is_empty() || listen.iter().any(is_unix);
        if accel != Accel::Off && !has_proxy {
            let words = "changes nothing without http.trusted_proxies or a Unix socket";
            self.warn("http.accel", words);
        }
        Some(accel)
    }

    fn tls(&mut self, raw: &RawTls) -> Option<Tls> {
        let mut file = |name: &str, text: &Option<String>| {
            let path = match text {
                Some(text) => value::path(text),
                None => Err(missing("http.tls", name, &format!("/etc/slotd/{name}.pem"))),
            };
            self.take(Key::of("http.tls").name(name), path)
        };
        let (certificate, key) = (file("certificate", &raw.certificate), file("key", &raw.key));
        Some(Tls {
            certificate: certificate?,
            key: key?,
        })
    }

    pub(super) fn limits(&mut self, raw: &RawLimits) -> Option<Limits> {
        let slots = self.number(
            "limits.slots_per_minute",
            raw.slots_per_minute,
            1..=1_000_000,
        );
        let bytes = self.size_or_none("limits.bytes_per_minute", &raw.bytes_per_minute);
        let stall_for = self.duration("limits.stall_for", &raw.stall_for, SECOND..=HOUR);
        let rate_min_bytes = self.size("limits.rate_min", &raw.rate_min, ANY);
        let per_address = self.number("limits.connections_max", raw.connections_max, 1..=1_000_000);
        let total = self.number(
            "limits.connections_total_max",
            raw.connections_total_max,
            1..=1_000_000,
        );
        let stop_within = self.duration(
            "limits.stop_within",
            &raw.stop_within,
            Duration::ZERO..=HOUR,
        );
        if let (Some(per_address), Some(total)) = (per_address, total)
            && total < per_address
        {
            let what = format!("{total} is less than limits.connections_max, {per_address}");
            self.refuse(
                "limits.connections_total_max",
                what,
                "raise it, or lower the other",
            );
        }
        if rate_min_bytes == Some(0) {
            self.warn(
                "limits.rate_min",
                "a client may hold a connection open with a byte a minute",
            );
        }
        Some(Limits {
            slot_rate: Rate { per_minute: slots? },
            byte_rate: bytes?.map(|per_minute| Rate { per_minute }),
            stall_for: stall_for?,
            rate_min_bytes: rate_min_bytes?,
            connections_per_address_max: per_address? as usize,
            connections_total_max: total? as usize,
            check_content_type: raw.check_content_type,
            stop_within: stop_within?,
        })
    }
}
