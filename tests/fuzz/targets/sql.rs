//! Bytes for [`Call::Sql`].

#![no_main]

use std::sync::LazyLock;

use lakegate_fuzz::{Call, Server};
use libfuzzer_sys::fuzz_target;

static SERVER: LazyLock<Server> = LazyLock::new(Server::start);

fuzz_target!(|bytes: &[u8]| SERVER.serves(Call::Sql, bytes));
