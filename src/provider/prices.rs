//! The price table: what tokens cost where a CLI does not say it itself.

use std::path::Path;

use serde::Deserialize;

use crate::domain::Fault;
use crate::domain::event::Usage;
use crate::project::yaml;

const SHIPPED: &str = include_str!("../../providers/prices.yaml");

/// The whole file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    version: u32,
    /// The day on which the prices were read.
    date: String,
    prices: Vec<Price>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Price {
    model: String,
    input: Dollars,
    output: Dollars,
    cache_read: Dollars,
    cache_write: Dollars,
}

/// Dollars per million tokens, kept as millionths of a dollar.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(try_from = "String")]
struct Dollars(u64);

impl TryFrom<String> for Dollars {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no price; write dollars, for example \"1.25\"");
        let (whole, part) = text.split_once('.').unwrap_or((&text, "0"));
        let digits = |t: &str| !t.is_empty() && t.len() <= 6 && t.bytes().all(|b| b.is_ascii_digit());
        if !digits(whole) || !digits(part) {
            return Err(wrong());
        }
        let micros = format!("{whole}{part:0<6}").parse().map_err(|_| wrong())?;
        Ok(Self(micros))
    }
}

impl Price {
    fn is_for(&self, model: &str) -> bool {
        match self.model.strip_suffix('*') {
            Some(prefix) => model.starts_with(prefix),
            None => model == self.model,
        }
    }

    /// Millionths of a dollar; `None` where a count is missing.
    fn cost(&self, usage: &Usage) -> Option<u64> {
        let parts = [
            (usage.input_tokens?, self.input),
            (usage.output_tokens?, self.output),
            (usage.cache_read_tokens.unwrap_or(0), self.cache_read),
            (usage.cache_write_tokens.unwrap_or(0), self.cache_write),
        ];
        let total: u128 = parts.iter().map(|(tokens, price)| u128::from(*tokens) * u128::from(price.0)).sum();
        u64::try_from(total.div_ceil(1_000_000)).ok()
    }
}

/// The shipped table.
fn table() -> Result<Table, Fault> {
    let table: Table = yaml::parse(Path::new("providers/prices.yaml"), SHIPPED.as_bytes())?;
    if table.version != 1 {
        return Err(Fault::internal(format!(
            "prices.yaml has version {}, which this vnx does not know",
            table.version
        )));
    }
    Ok(table)
}

/// Adds what the tokens cost, where nobody said so and the table knows. A table that cannot be
/// read leaves the cost unknown: it must not spoil a dispatch that is over.
pub fn add_cost(usage: &mut Usage, model: Option<&str>) {
    if usage.cost_micro_usd.is_some() {
        return;
    }
    let (Some(model), Ok(table)) = (model, table()) else { return };
    let cost = table.prices.iter().find(|price| price.is_for(model)).and_then(|price| price.cost(usage));
    if let Some(cost) = cost {
        usage.cost_micro_usd = Some(cost);
        usage.cost_source = Some(format!("prices of {}", table.date));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cost(model: &str, usage: Usage) -> Option<u64> {
        let mut usage = usage;
        add_cost(&mut usage, Some(model));
        assert_eq!(usage.cost_micro_usd.is_some(), usage.cost_source.is_some());
        usage.cost_micro_usd
    }

    #[test]
    fn tokens_cost_what_the_table_says_and_unknown_stays_unknown() {
        let usage = Usage {
            input_tokens: Some(1_000_000),
            output_tokens: Some(100_000),
            cache_read_tokens: Some(2_000_000),
            ..Usage::default()
        };
        assert_eq!(cost("gpt-5.3-codex", usage.clone()), Some(1_750_000 + 1_400_000 + 350_000));
        assert_eq!(cost("claude-opus-5-5", usage.clone()), Some(4_000_000 + 2_000_000 + 400_000));
        assert_eq!(cost("a-model-of-tomorrow", usage.clone()), None);
        assert_eq!(cost("gpt-5.5", Usage { output_tokens: None, ..usage }), None);
    }

    #[test]
    fn the_shipped_table_loads_and_a_wrong_price_is_named() {
        let table = table().unwrap();
        assert!(table.prices.len() > 10 && table.date.len() == 10);
        assert_eq!(Dollars::try_from("0.125".to_owned()).unwrap().0, 125_000);
        for wrong in ["", ".5", "1.", "-1", "1e3", "1,5", "0.1234567"] {
            assert!(Dollars::try_from(wrong.to_owned()).is_err(), "{wrong}");
        }
    }
}
