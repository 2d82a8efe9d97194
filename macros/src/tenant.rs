//! The option `tenant`, and the method that makes the tenant of a call from its arguments.

use proc_macro2::{Span, TokenStream};
use quote::quote;
use syn::{Ident, Meta};

use crate::errors::Errors;
use crate::key::Key;
use crate::signature::TaskFn;

/// The tenant as the attribute states it.
#[derive(Default)]
pub struct TenantOption {
    key: Option<Key>,
}

impl TenantOption {
    /// Reads the option.
    pub fn set(&mut self, name: &str, meta: &Meta) -> syn::Result<()> {
        self.key = Some(Key::read(name, meta)?);
        Ok(())
    }

    /// Checks the option against the parameters of the function.
    pub fn check(&mut self, task: &TaskFn, errors: &mut Errors) {
        let Some(key) = &mut self.key else { return };
        key.check(task, errors);
        if let Some(text) = key.constant() {
            let params: Vec<&Ident> = task.params.iter().map(|(name, _)| name).collect();
            let all = "`tenant` names a parameter, because each call has a tenant of its own";
            let advice = if params.is_empty() {
                "the task has no parameters, so leave it out; a call may state one: `task::s().tenant(\"acme\")`"
                    .to_owned()
            } else {
                format!("write `tenant = \"{{{}}}\"`; {}", params[0], crate::key::known(&params))
            };
            errors.at(text, format!("{all}: {advice}"));
        }
    }

    /// Whether the task names its tenants.
    pub fn is_given(&self) -> bool {
        self.key.is_some()
    }

    /// The parameters that the template names.
    pub fn params(&self) -> &[Ident] {
        self.key.as_ref().map_or(&[], Key::params)
    }

    /// The code of the method `Task::tenant`, if the task names its tenants.
    pub fn method(&self, task: &TaskFn) -> Option<TokenStream> {
        let names: Vec<&Ident> = task.params.iter().map(|(name, _)| name).collect();
        let args = Ident::new("args", Span::mixed_site());
        let tenant = self.key.as_ref()?.expression(&names);
        Some(quote! {
            #[allow(unused_variables, clippy::ptr_arg)]
            fn tenant(#args: &Self::Args) -> ::core::option::Option<::std::string::String> {
                let (#(#names,)*) = #args;
                ::core::option::Option::Some(#tenant)
            }
        })
    }
}
