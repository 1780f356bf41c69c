// SPDX-License-Identifier: Apache-2.0
// The engines of a program by the names of their policies, with no type of theirs: what a program needs that chooses at
// run time, and nothing that takes long to compile.
#pragma once

#include <zse/engine/any_engine.hpp>
#include <zse/model/from_gguf.hpp>

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

namespace zse::inline v1 {
namespace engine {

/// Names of policies, as the command line spells them.
struct Choice {
    std::string weights = "as-stored";
    std::string kv = "f16";  ///< as kv::Codecs::name() spells it: "int8/int4" where keys and values differ
    std::string attention = "flash";
    std::string exec = "cpu";  ///< cpu, cuda, or cuda-invariant

    [[nodiscard]] std::string spelled() const {
        return text("weights ", weights, ", KV ", kv, ", attention ", attention,
                    exec == "cpu" ? std::string() : text(", on ", exec));
    }
};

/// What the matrix knows of an engine.
struct Built {
    std::string_view weights;
    std::string kv;
    std::string_view attention;
    std::string_view exec;
    memory::Plan (*plan)(const ModelSpec&, const Limits&);
    std::unique_ptr<AnyEngine> (*open)(const io::Gguf&, const ModelSpec&, std::shared_ptr<const Vocabulary>,
                                       const Options&);

    [[nodiscard]] bool is(const Choice& choice) const noexcept {
        return weights == choice.weights && kv == choice.kv && attention == choice.attention &&
               exec == choice.exec;
    }
};

/// Finds and opens the engines that `List::built()` lists.
template <class List>
class Catalogue {
public:
    /// The engine of this choice; throws unsupported, naming the build option, where it is not built in.
    static Built find(const Choice& choice) {
        for (const Built& candidate : List::built()) {
            if (candidate.is(choice)) return candidate;
        }
        const bool on_gpu = choice.exec != "cpu";
        throw Error(
            ErrorCode::unsupported,
            text("an engine with ", choice.spelled(), " is not built in; choose another, or configure with ",
                 on_gpu ? "-DZSE_CUDA=ON and " : "", "-DZSE_EXTRA_ENGINES=", choice.weights, ":", choice.kv,
                 on_gpu ? ":" : "", on_gpu ? choice.exec : std::string()));
    }

    /// Opens a model with the engine of this choice.
    static std::unique_ptr<AnyEngine> open(const std::filesystem::path& path, const Choice& choice,
                                           const Options& options = {}) {
        const Built chosen = find(choice);
        const io::Gguf file = io::Gguf::open(path);
        const ModelSpec spec = model::spec_from_gguf(file);
        return chosen.open(file, spec, vocabulary_from_gguf(file, spec.vocabulary), options);
    }
};

}  // namespace engine
}  // namespace zse::inline v1
