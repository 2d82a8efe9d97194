//! The function under the attribute: the parts that a task needs, and which functions cannot be tasks.

use quote::ToTokens;
use syn::visit::{self, Visit};
use syn::{
    Attribute, Expr, FnArg, GenericArgument, Ident, ItemFn, Lifetime, Meta, Pat, PatType, PathArguments,
    PathSegment, ReturnType, Type, TypeReference,
};

use crate::errors::Errors;

/// The most parameters of a task. serde implements its traits for tuples up to this size.
const MOST_PARAMETERS: usize = 16;

/// The parts of the function that the expansion needs.
pub struct TaskFn {
    /// The type of the context as written, `Context` or `&Context`, if the function takes it.
    pub context: Option<Type>,
    /// The parameters that travel in the message.
    pub params: Vec<(Ident, Type)>,
    /// What Python writes before the name of each of these parameters: `*` or `**` before one that takes the rest.
    pub stars: Vec<&'static str>,
    /// The value of each of these parameters for a call that leaves it out.
    pub defaults: Vec<Option<Expr>>,
    /// All parameters but the context, in the order of the function.
    pub inputs: Vec<Input>,
    pub output: Output,
}

/// Where the value of a parameter comes from.
pub enum Input {
    /// From the message: the next of the arguments.
    Argument,
    /// From the runtime: the type as written, `Data<..>`.
    Data(Box<Type>),
}

/// The kind of value that the function returns.
pub enum Output {
    Unit,
    Value(Type),
    Result(Type),
}

impl TaskFn {
    /// Reads the function. The reasons why it cannot be a task go to `errors`.
    pub fn of(function: &ItemFn, errors: &mut Errors) -> Self {
        let sig = &function.sig;
        if let Some(unsafety) = &sig.unsafety {
            errors.at(
                unsafety,
                "a task cannot be an `unsafe fn`: the worker that calls it cannot vouch for anything",
            );
        }
        if let Some(constness) = &sig.constness {
            errors.at(constness, "a task cannot be a `const fn`: it runs later, in a worker");
        }
        if let Some(abi) = &sig.abi {
            errors.at(abi, "a task cannot be an `extern fn`: write a plain function that calls it");
        }
        if !sig.generics.params.is_empty() || sig.generics.where_clause.is_some() {
            let text = "a task cannot be generic: its name stands for one function, whoever enqueues it. Write one task for each type, each calling the generic function";
            if sig.generics.params.is_empty() {
                errors.at(&sig.generics.where_clause, text);
            } else {
                errors.at(&sig.generics, text);
            }
        }
        let mut task = Self {
            context: None,
            params: Vec::new(),
            stars: Vec::new(),
            defaults: Vec::new(),
            inputs: Vec::new(),
            output: Output::of(&sig.output, errors),
        };
        for (at, input) in sig.inputs.iter().enumerate() {
            match input {
                FnArg::Receiver(receiver) => errors.at(
                    receiver,
                    "a task cannot be a method: nobody keeps the object until it runs. Write a free function that takes what it needs",
                ),
                FnArg::Typed(param) => task.add(at, param, errors),
            }
        }
        if let Some((name, _)) = task.params.get(MOST_PARAMETERS) {
            errors.at(
                name,
                format!(
                    "a task takes at most {MOST_PARAMETERS} arguments, this one {}; put them into a struct",
                    task.params.len()
                ),
            );
        }
        task
    }

    /// The types of the parameters that come from the runtime.
    pub fn data(&self) -> impl Iterator<Item = &Type> {
        self.inputs.iter().filter_map(|input| match input {
            Input::Data(ty) => Some(&**ty),
            Input::Argument => None,
        })
    }

    fn add(&mut self, at: usize, param: &PatType, errors: &mut Errors) {
        let default = default(param, errors);
        if let (Some(default), true) = (&default, is_context(&param.ty) || is_data(&param.ty)) {
            errors.at(default, "callers do not pass this parameter, so it has no default");
        }
        if is_context(&param.ty) {
            match (&self.context, at) {
                (Some(_), _) => errors
                    .at(param, "there is one `Context` for each run; take it once, as the first parameter"),
                (None, 0) => {}
                (None, _) => errors.at(
                    param,
                    "the `Context` is the first parameter or none: it is no argument, callers do not pass it",
                ),
            }
            self.context = Some((*param.ty).clone());
            return;
        }
        if is_data(&param.ty) {
            self.inputs.push(Input::Data(param.ty.clone()));
            return;
        }
        self.inputs.push(Input::Argument);
        let star = star(&param.ty);
        match (self.stars.last(), star) {
            (None | Some(&""), _) | (Some(&"*"), "**") => {}
            (Some(before), star) if *before == star => {
                errors.at(param, "what the other parameters leave over is taken once");
            }
            _ => errors.at(
                param,
                "`Rest` and then `RestByName` take what the other parameters leave over, so they are the last ones, as in Python",
            ),
        }
        if let (Some(default), "*" | "**") = (&default, star) {
            errors
                .at(default, "where nothing is left over, this parameter is empty: it has no other default");
        }
        Owned::check(&param.ty, "a task owns its arguments, because they travel as JSON", "take", errors);
        match &*param.pat {
            Pat::Ident(name) if name.by_ref.is_none() && name.subpat.is_none() => {
                self.params.push((name.ident.clone(), (*param.ty).clone()));
                self.stars.push(star);
                self.defaults.push(default);
            }
            pattern => errors.at(
                pattern,
                "a task's parameter is a plain name, because callers may pass it by keyword; take the pattern apart in the body",
            ),
        }
    }
}

impl Output {
    fn of(output: &ReturnType, errors: &mut Errors) -> Self {
        match output {
            ReturnType::Default => Self::Unit,
            ReturnType::Type(_, ty) => {
                let ty = ungrouped(ty);
                // An error does not travel, so its type may be a boxed trait.
                for ty in parts_of(ty).into_iter().filter(|ty| !is_boxed_trait(ty)) {
                    let why = "a task returns an owned value, because it travels as JSON";
                    Owned::check(ty, why, "return", errors);
                }
                match ty {
                    Type::Tuple(tuple) if tuple.elems.is_empty() => Self::Unit,
                    Type::Path(path) if path.path.segments.last().is_some_and(|s| s.ident == "Result") => {
                        Self::Result(ty.clone())
                    }
                    _ => Self::Value(ty.clone()),
                }
            }
        }
    }
}

/// The types of the value and the error of a `Result<T, E>`; any other type alone.
fn parts_of(ty: &Type) -> Vec<&Type> {
    if let Type::Path(path) = ty
        && let Some(PathSegment { ident, arguments: PathArguments::AngleBracketed(arguments) }) =
            path.path.segments.last()
        && ident == "Result"
    {
        let types = arguments.args.iter().filter_map(|argument| match argument {
            GenericArgument::Type(ty) => Some(ungrouped(ty)),
            _ => None,
        });
        return types.collect();
    }
    vec![ty]
}

/// Whether the type is a `Box<dyn Trait>`.
fn is_boxed_trait(ty: &Type) -> bool {
    if let Type::Path(path) = ty
        && let Some(PathSegment { ident, arguments: PathArguments::AngleBracketed(arguments) }) =
            path.path.segments.last()
    {
        let boxed = arguments.args.first();
        return ident == "Box" && matches!(boxed, Some(GenericArgument::Type(Type::TraitObject(_))));
    }
    false
}

/// Whether the type is `Context` or `&Context`, by any path.
fn is_context(ty: &Type) -> bool {
    match ungrouped(ty) {
        Type::Reference(reference) if reference.mutability.is_none() => is_context_by_value(&reference.elem),
        ty => is_context_by_value(ty),
    }
}

fn is_context_by_value(ty: &Type) -> bool {
    // A `Context` with generic arguments is another one, for example that of std::task.
    matches!(ungrouped(ty), Type::Path(path) if path.path.segments.last()
        .is_some_and(|s| s.ident == "Context" && matches!(s.arguments, PathArguments::None)))
}

/// Whether the type is `Data<T>`, by any path.
fn is_data(ty: &Type) -> bool {
    is_of("Data", ty)
}

/// Whether the type has this name, by any path, and generic arguments.
fn is_of(name: &str, ty: &Type) -> bool {
    matches!(ungrouped(ty), Type::Path(path) if path.path.segments.last()
        .is_some_and(|s| s.ident == name && matches!(s.arguments, PathArguments::AngleBracketed(_))))
}

/// What Python writes before the name of a parameter of this type: `*` before `Rest<T>`, `**` before `RestByName<T>`.
fn star(ty: &Type) -> &'static str {
    if is_of("Rest", ty) {
        "*"
    } else if is_of("RestByName", ty) {
        "**"
    } else {
        ""
    }
}

/// The value of the attribute `#[default = 5]` of a parameter.
fn default(param: &PatType, errors: &mut Errors) -> Option<Expr> {
    let mut given = param.attrs.iter().filter(|attribute| is_default(attribute));
    let first = given.next()?;
    if let Some(second) = given.next() {
        errors.at(second, "`default` is given twice");
    }
    match &first.meta {
        Meta::NameValue(pair) => Some(pair.value.clone()),
        _ => {
            errors.at(
                first,
                "a default is written `#[default = 5]`: the value for calls that leave the parameter out",
            );
            None
        }
    }
}

fn is_default(attribute: &Attribute) -> bool {
    attribute.path().is_ident("default")
}

/// Takes off the parameters what only the macro understands.
pub fn strip(function: &mut ItemFn) {
    for input in &mut function.sig.inputs {
        if let FnArg::Typed(param) = input {
            param.attrs.retain(|attribute| !is_default(attribute));
        }
    }
}

/// The type without the invisible parentheses that `macro_rules` leaves around a `$t:ty`.
fn ungrouped(ty: &Type) -> &Type {
    match ty {
        Type::Group(group) => ungrouped(&group.elem),
        ty => ty,
    }
}

/// Reports parts of a type that do not own their data, at any depth.
struct Owned<'a> {
    why: &'a str,
    verb: &'a str,
    errors: &'a mut Errors,
}

impl<'a> Owned<'a> {
    fn check(ty: &Type, why: &'a str, verb: &'a str, errors: &'a mut Errors) {
        Self { why, verb, errors }.visit_type(ty);
    }

    fn reject(&mut self, at: impl ToTokens, take: &str) {
        self.errors.at(at, format!("{}; {take}", self.why));
    }
}

impl<'ast> Visit<'ast> for Owned<'_> {
    fn visit_type_reference(&mut self, reference: &'ast TypeReference) {
        let elem = ungrouped(&reference.elem);
        let owned = match elem {
            Type::Slice(slice) => format!("Vec<{}>", spell(&slice.elem)),
            Type::Path(path) => match path.path.segments.last().map(|s| s.ident.to_string()).as_deref() {
                Some("str") => "String".to_owned(),
                Some("Path") => "PathBuf".to_owned(),
                Some("Data") => {
                    self.reject(reference, "take `Data<T>` by value; its clones share one value");
                    return;
                }
                Some("Context") if reference.mutability.is_some() => {
                    self.reject(reference, "take `Context` or `&Context`, the first parameter");
                    return;
                }
                _ => spell(elem),
            },
            _ => spell(elem),
        };
        self.reject(reference, &format!("{} `{owned}` instead of `{}`", self.verb, spell(reference)));
    }

    fn visit_lifetime(&mut self, lifetime: &'ast Lifetime) {
        if lifetime.ident != "static" {
            self.reject(lifetime, &format!("{} a type that borrows nothing", self.verb));
        }
    }

    fn visit_type_impl_trait(&mut self, ty: &'ast syn::TypeImplTrait) {
        self.reject(ty, "`impl Trait` names no type to decode into: write the type");
    }

    fn visit_type(&mut self, ty: &'ast Type) {
        if let Type::Ptr(_) | Type::Slice(_) | Type::TraitObject(_) | Type::Infer(_) = ty {
            self.reject(ty, "write an owned type");
            return;
        }
        visit::visit_type(self, ty);
    }
}

/// The text of a type, nearly as its author wrote it.
fn spell(tokens: impl ToTokens) -> String {
    let mut text = tokens.to_token_stream().to_string();
    for (spaced, tight) in [("& ", "&"), (" <", "<"), ("< ", "<"), (" >", ">"), (" :: ", "::"), (" ,", ",")] {
        text = text.replace(spaced, tight);
    }
    text
}
