//! The option `search`: the parameters by whose values the tasks that wait, run or have failed are found.

use proc_macro2::TokenStream;
use quote::quote;
use syn::ext::IdentExt;
use syn::{Error, Expr, ExprLit, Lit, LitStr, Meta};

use crate::errors::{Errors, did_you_mean};
use crate::options::value;
use crate::signature::TaskFn;

/// The parameters as the attribute states them.
#[derive(Default)]
pub struct SearchOption {
    names: Vec<LitStr>,
}

impl SearchOption {
    /// Reads the option.
    pub fn set(&mut self, name: &str, meta: &Meta) -> syn::Result<()> {
        let example = "[\"form_id\"]";
        let wrong = |expr: &Expr| {
            let text = format!("`{name}` is a list of parameters: write `{name} = {example}`");
            Error::new_spanned(expr, text)
        };
        let given = value(name, meta, example)?;
        let Expr::Array(list) = given else { return Err(wrong(given)) };
        if list.elems.is_empty() {
            let text = format!("`{name}` names no parameter: leave it out, or write `{name} = {example}`");
            return Err(Error::new_spanned(given, text));
        }
        for item in &list.elems {
            let Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) = item else { return Err(wrong(item)) };
            self.names.push(text.clone());
        }
        Ok(())
    }

    /// Checks the names against the parameters of the function.
    pub fn check(&self, task: &TaskFn, errors: &mut Errors) {
        // What a rest holds has no name of its own.
        let named = task.params.iter().zip(&task.stars).filter(|(_, star)| star.is_empty());
        let known: Vec<String> = named.map(|((name, _), _)| name.unraw().to_string()).collect();
        let all = match known.as_slice() {
            [] => "the task has no parameters to search by: leave `search` out".to_owned(),
            known => format!("the parameters are: {}", known.join(", ")),
        };
        let mut seen: Vec<String> = Vec::new();
        for name in &self.names {
            let text = name.value();
            if seen.contains(&text) {
                errors.at(name, format!("`search` names `{text}` twice"));
            } else if !known.contains(&text) {
                let is_rest = task.params.iter().any(|(param, _)| param.unraw() == text);
                let what = match is_rest {
                    true => "takes the rest of the arguments, and is no argument itself".to_owned(),
                    false => format!("is no parameter{}", did_you_mean(&text, &known)),
                };
                errors.at(name, format!("`search` names `{text}`, which {what}\n{all}"));
            }
            seen.push(text);
        }
    }

    /// An expression for the names.
    pub fn expression(&self) -> TokenStream {
        let names = &self.names;
        quote!(&[#(#names),*])
    }
}
