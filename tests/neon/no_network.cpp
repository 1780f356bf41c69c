// SPDX-License-Identifier: Apache-2.0
// GoogleTest can stream its results to another host, whose address a static program cannot look up: it finds none.
#include <netdb.h>

extern "C" int getaddrinfo(const char* /*node*/, const char* /*service*/, const addrinfo* /*hints*/,
                           addrinfo** /*found*/) {
    return EAI_FAIL;
}
extern "C" void freeaddrinfo(addrinfo* /*found*/) noexcept {}
