//! Sums of products, linear in each of their factors.
//!
//! ```text
//! y = Einsum <ab,bc->ac> (A, B)   s_A = Einsum <ac,bc->ab> (s_y, B)
//! y = Einsum <ab->a> (A)          s_A = s_y repeated along b
//! ```

use bcosc_ir::Attribute;

use crate::context::{Found, RuleContext};
use bcosc_passes::Reason;

/// One factor or two, no index twice in one of them.
pub(crate) fn einsum(cx: &mut RuleContext<'_>) -> Found {
    let dy = cx.dy()?;
    let (terms, output) = equation(cx)?;
    let mut found = Vec::new();
    for &slot in cx.wanted {
        let own = terms.get(slot as usize).ok_or(Reason::Malformed)?;
        let other = (0..terms.len()).find(|&i| i != slot as usize);
        let seen = other.map_or("", |i| &terms[i]);
        let (mut factors, mut left) = (vec![dy], output.clone());
        if let Some(i) = other {
            factors.push(cx.operand(i as u32)?.into());
            left = format!("{output},{seen}");
        }
        let is_kept = |c: char| output.contains(c) || seen.contains(c);
        let kept: String = own.chars().filter(|&c| is_kept(c)).collect();
        let equation = Attribute::string("equation", &format!("{left}->{kept}"));
        let mut back = cx.op_with("Einsum", &factors, [equation]);
        if kept != *own {
            // An index that no other factor has, and that was summed.
            let letters = own.char_indices();
            let summed: Vec<i64> = letters
                .filter(|&(_, c)| !is_kept(c))
                .map(|(axis, _)| axis as i64)
                .collect();
            back = cx.unsqueeze(back, &summed);
            let operand = cx.operand(slot)?;
            let shape = cx.shape(operand);
            back = cx.op("Expand", &[back, shape]);
        }
        found.push((slot, back));
    }
    Ok(found)
}

/// The indices of the factors and of the result.
fn equation(cx: &RuleContext<'_>) -> Result<(Vec<String>, String), Reason> {
    let text: &str = cx.attribute("equation")?;
    let text: String = text.chars().filter(|c| !c.is_whitespace()).collect();
    let (inputs, output) = match text.split_once("->") {
        Some((inputs, output)) => (inputs, output.to_owned()),
        None => {
            // Those that occur once, in alphabetical order.
            let once = |c: &char| c.is_alphabetic() && text.matches(*c).count() == 1;
            let mut letters: Vec<char> = text.chars().filter(once).collect();
            letters.sort_unstable();
            (&text[..], letters.into_iter().collect())
        }
    };
    let terms: Vec<String> = inputs.split(',').map(str::to_owned).collect();
    let plain = |term: &String| {
        let mut letters = term.char_indices();
        letters.all(|(i, c)| c.is_alphabetic() && term.find(c) == Some(i))
    };
    if terms.len() > 2 || !plain(&output) || !terms.iter().all(plain) {
        return Err(Reason::NoBackwardRule);
    }
    Ok((terms, output))
}
