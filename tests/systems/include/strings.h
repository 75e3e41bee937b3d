#ifndef STUB_STRINGS_H
#define STUB_STRINGS_H

int strcasecmp(const char *a, const char *b);

#endif
