// SPDX-License-Identifier: Apache-2.0
// What the driver of a GPU takes of it for itself: nobody can compute it, so it is measured when an engine opens and
// remembered for the next plan.
#pragma once

#include <zse/core/bytes.hpp>
#include <zse/core/version.hpp>
#include <zse/system/root.hpp>

#include <cstdlib>
#include <fstream>
#include <string>
#include <vector>

namespace zse::inline v1 {
namespace system {

/// Bytes of a GPU that no arena has.
struct DriverBytes {
    Bytes context = 0;    ///< of the context, the kernels, and whoever else used the GPU when it was measured
    Bytes per_graph = 0;  ///< of one captured step
    friend bool operator==(const DriverBytes&, const DriverBytes&) = default;

    /// What a plan leaves free where nothing was measured yet: a context on a data-centre GPU takes 300 to 500 MB.
    static constexpr DriverBytes assumed() noexcept { return {MiB(600), MiB(8)}; }
};

/// A file of lines `GPU <tab> version of this library <tab> context <tab> per graph`. What is damaged is as good as not
/// there: it is measured again.
class DriverRecords {
public:
    explicit DriverRecords(std::filesystem::path file) : file_(std::move(file)) {}

    /// The usual place: `gpus` in $ZSE_CACHE, or in ~/.cache/zse; none where neither is known.
    static std::optional<std::filesystem::path> usual_place() {
        if (const char* cache = std::getenv("ZSE_CACHE"); cache != nullptr && *cache != 0)
            return std::filesystem::path(cache) / "gpus";
        if (const char* home = std::getenv("HOME"); home != nullptr && *home != 0)
            return std::filesystem::path(home) / ".cache/zse/gpus";
        return std::nullopt;
    }

    [[nodiscard]] std::optional<DriverBytes> find(std::string_view gpu) const {
        for (const std::string& line : lines()) {
            if (const auto bytes = parse(line, gpu)) return bytes;
        }
        return std::nullopt;
    }
    /// Replaces what is known of a GPU. A directory that cannot be written is no error: the next engine measures again.
    void store(std::string_view gpu, const DriverBytes& bytes) const {
        if (gpu.find_first_of("\t\n") != std::string_view::npos) return;
        std::string all = text(gpu, "\t", version, "\t", bytes.context, "\t", bytes.per_graph, "\n");
        for (const std::string& line : lines()) {
            if (!parse(line, gpu)) all += line + '\n';
        }
        std::error_code ignored;
        std::filesystem::create_directories(file_.parent_path(), ignored);
        // Written beside and renamed, so that no reader sees half of it.
        const std::filesystem::path beside = file_.string() + text(".", ::getpid());
        {
            std::ofstream out(beside, std::ios::binary);
            out << all;
            if (!out.good()) {
                std::filesystem::remove(beside, ignored);
                return;
            }
        }
        std::filesystem::rename(beside, file_, ignored);
    }

private:
    static constexpr std::size_t most_lines = 256;

    [[nodiscard]] std::vector<std::string> lines() const {
        std::vector<std::string> found;
        std::ifstream in(file_);
        for (std::string line; found.size() < most_lines && std::getline(in, line);) found.push_back(line);
        return found;
    }
    static std::optional<DriverBytes> parse(std::string_view line, std::string_view gpu) {
        const auto field = [&line] {
            const std::size_t tab = line.find('\t');
            const std::string_view part = line.substr(0, tab);
            line.remove_prefix(tab == std::string_view::npos ? line.size() : tab + 1);
            return part;
        };
        if (field() != gpu || field() != version) return std::nullopt;
        const auto context = detail::number<Bytes>(field());
        const auto per_graph = detail::number<Bytes>(field());
        if (!context || !per_graph) return std::nullopt;
        return DriverBytes{*context, *per_graph};
    }

    std::filesystem::path file_;
};

}  // namespace system
}  // namespace zse::inline v1
