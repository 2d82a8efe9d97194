//! The key of a serial task, or of a unique window. It is a function of the parameters, or a template: a text with
//! parameters in braces, which is checked against the parameters of the function.
//!
//! `{domain}` is a parameter, and `{form.domain}` is a field of a parameter, at any depth; `{{` and `}}` stand for
//! braces. The generated code joins the parts by `celeriac::task::joined`, so that different parts never make the
//! same key.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::ext::IdentExt;
use syn::spanned::Spanned;
use syn::{Error, Expr, ExprLit, Ident, Lit, LitStr, Meta, Path};

use crate::errors::{Errors, did_you_mean};
use crate::options::value;
use crate::signature::TaskFn;

/// A key as the attribute states it.
pub struct Key {
    given: Given,
    template: Option<Template>,
}

enum Given {
    Template(LitStr),
    Function(Path),
}

impl Key {
    /// Reads the option `name`, which states a key.
    pub fn read(name: &str, meta: &Meta) -> syn::Result<Self> {
        let given = match value(name, meta, "\"{domain}\"")? {
            Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) => Given::Template(text.clone()),
            Expr::Path(path) if path.qself.is_none() => Given::Function(path.path.clone()),
            other => {
                let text = format!(
                    "`{name}` is text with parameters in braces, `{name} = \"{{domain}}-{{user_id}}\"`, or the path of a function that takes them all by reference"
                );
                return Err(Error::new_spanned(other, text));
            }
        };
        Ok(Self { given, template: None })
    }

    /// Checks a template against the parameters of the function.
    pub fn check(&mut self, task: &TaskFn, errors: &mut Errors) {
        if let Given::Template(text) = &self.given {
            let params: Vec<&Ident> = task.params.iter().map(|(name, _)| name).collect();
            self.template = Some(Template::of(text, &params, errors));
        }
    }

    /// The text of a template that names no parameter, so that all calls have one key.
    pub fn constant(&self) -> Option<&LitStr> {
        match (&self.given, &self.template) {
            (Given::Template(text), Some(template)) if template.is_constant() => Some(text),
            _ => None,
        }
    }

    /// The parameters that the template names; none for a function.
    pub fn params(&self) -> &[Ident] {
        self.template.as_ref().map_or(&[], Template::params)
    }

    /// An expression for the text of the key. The parameters with these names must be in scope as references.
    pub fn expression(&self, names: &[&Ident]) -> TokenStream {
        match (&self.given, &self.template) {
            (Given::Function(function), _) => {
                let call = quote_spanned!(function.span()=> #function(#(#names),*));
                quote!(::std::string::ToString::to_string(&#call))
            }
            (_, Some(template)) => template.expression(),
            _ => quote!(::std::string::String::new()),
        }
    }
}

/// A template, split into its texts and its parameters.
pub struct Template {
    /// The texts around the parts; one more than there are parts.
    texts: Vec<String>,
    /// The expressions of the parts, each a parameter with its fields.
    parts: Vec<TokenStream>,
    /// The parameters that the template names.
    params: Vec<Ident>,
    /// Whether nothing in it is wrong.
    is_sound: bool,
}

impl Template {
    /// Reads a template. Its mistakes go to `errors`, with a list of the parameters of the function.
    pub fn of(literal: &LitStr, params: &[&Ident], errors: &mut Errors) -> Self {
        let (texts, parts) = (vec![String::new()], Vec::new());
        let mut template = Self { texts, parts, params: Vec::new(), is_sound: true };
        match pieces(&literal.value()) {
            Err(text) => {
                template.is_sound = false;
                errors.at(literal, format!("{text}; {}", known(params)));
            }
            Ok(pieces) => {
                for piece in pieces {
                    match piece {
                        Piece::Text(text) => {
                            if let Some(last) = template.texts.last_mut() {
                                last.push_str(&text);
                            }
                        }
                        Piece::Path(path) => match part(literal, &path, params) {
                            Ok((param, part)) => {
                                template.texts.push(String::new());
                                template.params.push(param);
                                template.parts.push(part);
                            }
                            Err(text) => {
                                template.is_sound = false;
                                errors.at(literal, text);
                            }
                        },
                    }
                }
            }
        }
        template
    }

    /// Whether the template could be read and names no parameter.
    fn is_constant(&self) -> bool {
        self.is_sound && self.params.is_empty()
    }

    /// The parameters that the template names. The function need not use them for anything else.
    pub fn params(&self) -> &[Ident] {
        &self.params
    }

    /// An expression for the text of the key. The parameters must be in scope by their names, as references.
    pub fn expression(&self) -> TokenStream {
        let (texts, parts) = (&self.texts, &self.parts);
        quote!(::celeriac::task::joined(&[#(#texts),*], &[#(#parts),*]))
    }
}

enum Piece {
    Text(String),
    Path(String),
}

/// Splits a template into texts and paths, which alternate.
fn pieces(template: &str) -> Result<Vec<Piece>, String> {
    let mut pieces = Vec::new();
    let mut text = String::new();
    let mut rest = template;
    while let Some(at) = rest.find(['{', '}']) {
        text.push_str(&rest[..at]);
        let brace = &rest[at..=at];
        let behind = &rest[at + 1..];
        if behind.starts_with(brace) {
            text.push_str(brace);
            rest = &behind[1..];
            continue;
        }
        let end = behind.find('}').filter(|_| brace == "{");
        let Some(end) = end else {
            let twice = brace.repeat(2);
            return Err(format!(
                "the key has a `{brace}` without its other half (for a brace as such, write `{twice}`)"
            ));
        };
        pieces.push(Piece::Text(std::mem::take(&mut text)));
        pieces.push(Piece::Path(behind[..end].to_owned()));
        rest = &behind[end + 1..];
    }
    text.push_str(rest);
    pieces.push(Piece::Text(text));
    Ok(pieces)
}

/// The parameter that a path such as `form.domain` begins with, and an expression for the path.
fn part(literal: &LitStr, path: &str, params: &[&Ident]) -> Result<(Ident, TokenStream), String> {
    let mut names = path.split('.');
    let first = names.next().unwrap_or_default().trim();
    let Some(param) = params.iter().find(|param| param.unraw() == first) else {
        let what = match first {
            "" => "the key has `{}`, which names no parameter".to_owned(),
            _ => format!("the key names `{first}`, which is no parameter"),
        };
        let nearest = did_you_mean(first, params.iter().map(|param| param.unraw().to_string()));
        return Err(format!("{what}{nearest}\n{}", known(params)));
    };
    let is_field = path.contains('.');
    let mut expression = match is_field {
        true => quote_spanned!(literal.span()=> #param),
        false => quote_spanned!(literal.span()=> *#param),
    };
    for name in names {
        let name = name.trim();
        let member = match syn::parse_str::<syn::Member>(name) {
            Ok(syn::Member::Named(field)) => {
                let field = Ident::new(&field.to_string(), literal.span());
                quote_spanned!(literal.span()=> #field)
            }
            Ok(syn::Member::Unnamed(index)) => {
                let index = syn::Index { index: index.index, span: literal.span() };
                quote_spanned!(literal.span()=> #index)
            }
            Err(_) => {
                return Err(format!(
                    "`{name}` in `{{{path}}}` is no field's name; a key names a parameter and its fields, as in `{{form.domain}}`"
                ));
            }
        };
        expression = quote_spanned!(literal.span()=> #expression.#member);
    }
    let part = quote_spanned!(literal.span()=> ::celeriac::task::KeyPart::key_part(&#expression));
    Ok(((*param).clone(), part))
}

/// The sentence that lists the parameters of the function.
pub fn known(params: &[&Ident]) -> String {
    if params.is_empty() {
        return "the task has no parameters, and so one key: leave it out".to_owned();
    }
    let names: Vec<String> = params.iter().map(|param| param.unraw().to_string()).collect();
    format!("the parameters are: {}", names.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use syn::parse_str;

    fn read(key: &str) -> Result<(String, Vec<String>), String> {
        let params: Vec<Ident> = ["domain", "form"].iter().map(|name| parse_str(name).unwrap()).collect();
        let params: Vec<&Ident> = params.iter().collect();
        let mut errors = Errors::default();
        let template = Template::of(&LitStr::new(key, proc_macro2::Span::call_site()), &params, &mut errors);
        if !errors.is_empty() {
            return Err(errors.into_tokens().to_string());
        }
        let text = template.texts.join("{}");
        Ok((text, template.parts.iter().map(|part| part.to_string().replace(' ', "")).collect()))
    }

    #[test]
    fn templates_are_taken_apart() {
        let part = |path: &str| format!("::celeriac::task::KeyPart::key_part(&{path})");
        for (key, text, parts) in [
            ("", "", vec![]),
            ("all", "all", vec![]),
            ("{domain}", "{}", vec![part("*domain")]),
            ("a-{domain}-{ form.user.0 }", "a-{}-{}", vec![part("*domain"), part("form.user.0")]),
            ("{{{domain}}}", "{{}}", vec![part("*domain")]),
        ] {
            assert_eq!(read(key), Ok((text.to_owned(), parts)), "{key}");
        }
    }

    #[test]
    fn errors_say_what_and_name_the_parameters() {
        for (key, what) in [
            ("{domian}", "no parameter; did you mean `domain`?"),
            ("{zzz}", "the key names `zzz`, which is no parameter"),
            ("{}", "names no parameter"),
            ("{domain", "without its other half"),
            ("domain}", "without its other half"),
            ("{form.a b}", "`a b` in `{form.a b}` is no field's name"),
            ("{form.len()}", "is no field's name"),
        ] {
            let error = read(key).unwrap_err();
            assert!(error.contains(what), "{key}: {error}");
        }
        assert!(read("{x}").unwrap_err().contains("the parameters are: domain, form"));
    }
}
