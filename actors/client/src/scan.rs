//! Reading a range, page by page.

use crate::client::Client;
use crate::error::Error;
use crate::store::Context;
use std::collections::VecDeque;
use weald_proto::limits::PAGE_ITEMS_MAX;
use weald_proto::request;

/// A key of a range, with what is stored under it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// The key.
    pub key: Vec<u8>,
    /// Its live values; none with [`Scan::keys_only`].
    pub values: Vec<Vec<u8>>,
    /// What has been seen by this read.
    pub context: Context,
}

/// A range of a table, in the order of its keys.
///
/// Each page is a snapshot of its own: keys written during the scan may or may not appear, others appear exactly once.
#[derive(Debug)]
#[must_use = "nothing is read until `next` is called"]
pub struct Scan {
    client: Client,
    request: request::Scan,
    items: VecDeque<Item>,
    ended: bool,
    corrupt: u64,
}

impl Scan {
    /// Only keys that start with this.
    pub fn prefix(mut self, prefix: impl Into<Vec<u8>>) -> Self {
        self.request.prefix = prefix.into();
        self
    }

    /// First key, included.
    pub fn from(mut self, key: impl Into<Vec<u8>>) -> Self {
        self.request.from = Some(key.into());
        self
    }

    /// Last key, excluded.
    pub fn to(mut self, key: impl Into<Vec<u8>>) -> Self {
        self.request.to = Some(key.into());
        self
    }

    /// Leave the values out.
    pub fn keys_only(mut self) -> Self {
        self.request.keys_only = true;
        self
    }

    /// Items fetched at once, 1 to 1,000; a page ends earlier when it is large in bytes.
    pub fn page_size(mut self, items: u32) -> Self {
        self.request.limit = items;
        self
    }

    /// The next item; none at the end. After an error the same page is tried again by the next call.
    pub async fn next(&mut self) -> Option<Result<Item, Error>> {
        while self.items.is_empty() && !self.ended {
            let page = match self.client.request(self.request.clone(), self.client.deadline()).await
            {
                Ok(page) => page,
                Err(error) => return Some(Err(error)),
            };
            self.ended = page.next.is_none();
            self.request.token = page.next;
            self.corrupt += page.corrupt;
            self.items.extend(page.items.into_iter().map(|item| Item {
                key: item.key,
                values: item.values,
                context: Context::from_bytes(item.context),
            }));
        }
        self.items.pop_front().map(Ok)
    }

    /// Damaged records met so far; they are not served.
    #[must_use]
    pub fn corrupt(&self) -> u64 {
        self.corrupt
    }
}

impl Client {
    /// Reads a table or a part of it.
    pub fn scan(&self, table: &str) -> Scan {
        let request = request::Scan {
            table: table.to_owned(),
            prefix: Vec::new(),
            from: None,
            to: None,
            token: None,
            limit: u32::try_from(PAGE_ITEMS_MAX).unwrap_or(u32::MAX),
            keys_only: false,
        };
        Scan { client: self.clone(), request, items: VecDeque::new(), ended: false, corrupt: 0 }
    }
}
