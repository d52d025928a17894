// A warning of the line that a user wrote, however many frames of ours and of torch's stand between.
#pragma once

#include <string>

namespace clr {

// A UserWarning. Runs Python; throws what the warning becomes where a filter makes an error of it.
void warn_user(const std::string& message);

}  // namespace clr
