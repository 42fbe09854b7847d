/* Implements the databases' part of include/hyperwal.h. */
#include "hyperwal.h"

const char *hyperwal_version(void)
{
    return HW_VERSION;
}
