//! Stock answers: simulated devices give them, `push stock-question` and `ask stock` show them.

use serde_json::{Value, json};
use wire_format::payload::{Level, Payload, StockAnswer, StockQuestion};

/// Bytes of an encoded answer.
pub(crate) const ANSWER_LEN_MAX: usize = StockAnswer::LEN_MAX;

/// `unknown`, `none`, `some`, or a quantity with up to three decimals; as a value parser.
pub(crate) fn level(text: &str) -> Result<Level, String> {
    match text {
        "unknown" => Ok(Level::Unknown),
        "none" => Ok(Level::None),
        "some" => Ok(Level::Some),
        _ => crate::push::milli(text)
            .map(|milli| Level::Counted(milli.into()))
            .ok_or_else(|| "unknown, none, some, or a quantity such as 12 or 3.5".to_owned()),
    }
}

/// Writes the answer to an encoded question; bytes written, `None` if it is no question about stock.
pub(crate) fn answer(question: &[u8], level: Level, buffer: &mut [u8]) -> Option<usize> {
    let StockQuestion { article, .. } = StockQuestion::decode(question).ok()?;
    StockAnswer { article, level, age_s: 0 }.encode(buffer).ok()
}

/// An encoded answer as `{article, level, quantity_milli, age_s}`; `None` if it is none.
pub(crate) fn json(payload: &[u8]) -> Option<Value> {
    let StockAnswer { article, level, age_s } = StockAnswer::decode(payload).ok()?;
    let (name, quantity) = match level {
        Level::Unknown => ("unknown", None),
        Level::None => ("none", None),
        Level::Some => ("some", None),
        Level::Counted(milli) => ("counted", Some(milli)),
    };
    Some(json!({"article": article, "level": name, "quantity_milli": quantity, "age_s": age_s}))
}

/// What [`json()`] says, for people.
pub(crate) fn people(answer: &Value) -> String {
    match answer["quantity_milli"].as_i64() {
        Some(milli) if milli % 1_000 == 0 => format!("{} in stock", milli / 1_000),
        Some(milli) => {
            let sign = if milli < 0 { "-" } else { "" };
            let milli = milli.unsigned_abs();
            format!("{sign}{}.{:03} in stock", milli / 1_000, milli % 1_000)
        }
        None => format!("stock: {}", answer["level"].as_str().unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_what_the_question_asked_for() {
        let mut question = [0; StockQuestion::LEN_MAX];
        let len = StockQuestion { article: 7, place: "" }.encode(&mut question).unwrap();
        let mut buffer = [0; ANSWER_LEN_MAX];
        let written = answer(&question[..len], level("3.5").unwrap(), &mut buffer).unwrap();
        let told = json(&buffer[..written]).unwrap();
        assert_eq!((&told["article"], &told["quantity_milli"]), (&7.into(), &3_500.into()));
        assert_eq!(people(&json(&buffer[..written]).unwrap()), "3.500 in stock");
        assert_eq!(answer(b"nonsense", Level::Some, &mut buffer), None);
        let written = answer(&question[..len], level("none").unwrap(), &mut buffer).unwrap();
        assert_eq!(people(&json(&buffer[..written]).unwrap()), "stock: none");
        assert!(level("a few").is_err());
    }
}
