// SPDX-License-Identifier: Apache-2.0
// Many engines in one program: products of policy lists, and the choice of one at run time.
#pragma once

#include <zse/engine.hpp>
#include <zse/engine/catalogue.hpp>
#include <zse/policy/list.hpp>

#include <boost/hana/cartesian_product.hpp>
#include <boost/hana/concat.hpp>
#include <boost/hana/for_each.hpp>
#include <boost/hana/transform.hpp>

#include <array>
#include <string>
#include <vector>

namespace zse::inline v1 {
namespace engine {

/// One engine of a matrix, without its type. Explicitly instantiated in a file of its own by
/// zse_add_engine_matrix().
template <class E>
struct Instance {
    static memory::Plan plan(const ModelSpec& spec, const Limits& limits) { return E::plan(spec, limits); }
    static std::unique_ptr<AnyEngine> open(const io::Gguf& file, const ModelSpec& spec,
                                           std::shared_ptr<const Vocabulary> vocabulary,
                                           const Options& options) {
        return E::open(file, spec, std::move(vocabulary), options);
    }
};

/// All combinations of these weight, KV and attention policies, on one tier policy and one executor.
template <class Weights, class Kv, class Attention, class Tiers = tiers::host, class Exec = exec::cpu>
struct Product;

template <class... W, class... K, class... A, class Tiers, class Exec>
struct Product<policy::List<W...>, policy::List<K...>, policy::List<A...>, Tiers, Exec> {
    static constexpr auto engines() {
        namespace hana = boost::hana;
        return hana::transform(
            hana::cartesian_product(
                hana::make_tuple(hana::tuple_t<W...>, hana::tuple_t<K...>, hana::tuple_t<A...>)),
            [](auto policies) {
                return hana::type_c<Engine<Tiers, Exec, typename decltype(+hana::at_c<0>(policies))::type,
                                           typename decltype(+hana::at_c<1>(policies))::type,
                                           typename decltype(+hana::at_c<2>(policies))::type>>;
            });
    }
};

}  // namespace engine

/// The union of several products. The CMake option ZSE_EXTRA_ENGINES adds to the one of the command line.
template <class... Products>
class EngineMatrix : public engine::Catalogue<EngineMatrix<Products...>> {
public:
    /// The engine types, as a tuple of hana types.
    static constexpr auto types() { return joined(Products::engines()...); }

    /// Not defined in the class, so that programs of several files compile it once (see zse_add_engine_matrix()).
    static std::vector<engine::Built> built();

private:
    template <class First>
    static constexpr auto joined(const First& first) {
        return first;
    }
    template <class First, class Second, class... Rest>
    static constexpr auto joined(const First& first, const Second& second, const Rest&... rest) {
        return joined(boost::hana::concat(first, second), rest...);
    }
};

template <class... Products>
std::vector<engine::Built> EngineMatrix<Products...>::built() {
    std::vector<engine::Built> all;
    boost::hana::for_each(types(), [&](auto candidate) {
        using E = typename decltype(candidate)::type;
        all.push_back({E::Weights::name, kv::Codecs<typename E::Kv>::name(), E::Attention::name,
                       E::Exec::name, &engine::Instance<E>::plan, &engine::Instance<E>::open});
    });
    return all;
}

}  // namespace zse::inline v1
