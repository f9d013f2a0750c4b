// Package licence names the licence of a module by the text of the files that it
// ships. It knows only licences that allow us to pass the module on under the Apache
// License 2.0, and takes nothing that it does not know.
package licence

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// allowed are licences that ask for no more than a notice or, for MPL, the source of
// the files themselves, unchanged ones here. Each is told by sentences that only it
// has; the first that fits counts.
var allowed = []struct {
	name      string
	sentences []string
}{
	{choice, []string{"SPDX-License-Identifier: BSD-3-Clause OR GPL-2.0-only", "The licensed conditions are one or the other of these two Licenses"}},
	{"Apache-2.0", []string{"Apache License", "Version 2.0", "TERMS AND CONDITIONS FOR USE, REPRODUCTION, AND DISTRIBUTION"}},
	{"MPL-2.0", []string{"Mozilla Public License", "2.0"}},
	{"BSD-3-Clause", []string{"Redistribution and use in source and binary forms", "endorse or promote products"}},
	{"BSD-2-Clause", []string{"Redistribution and use in source and binary forms"}},
	{"ISC", []string{"Permission to use, copy, modify, and", "distribute this software for any purpose with or without fee is hereby granted"}},
	{"CC0-1.0", []string{"CC0 1.0 Universal", "Creative Commons Legal Code"}},
	{"MIT", []string{"Permission is hereby granted, free of charge, to any person obtaining a copy of this software", "without restriction"}},
}

// choice is libcap's: whoever passes it on takes the one or the other.
const choice = "BSD-3-Clause OR GPL-2.0-only"

// refused are the titles of licences that a file may have beside one that is allowed,
// if it does not leave the choice. MPL names them, too, but not in capitals.
var refused = []string{"GNU GENERAL PUBLIC LICENSE", "GNU LESSER GENERAL PUBLIC LICENSE", "GNU AFFERO GENERAL PUBLIC LICENSE"}

// Of returns the licences of the module in a folder as an SPDX expression (SPDX 2.3,
// annex D). Every file of one must be known.
func Of(dir string) (string, error) {
	files, err := os.ReadDir(dir)
	if err != nil {
		return "", err
	}
	var names []string
	for _, f := range files {
		name := strings.ToUpper(f.Name())
		// A table of what was taken from others is no licence.
		if f.IsDir() || !strings.HasPrefix(name, "LICEN") && !strings.HasPrefix(name, "COPYING") || strings.HasSuffix(name, ".CSV") {
			continue
		}
		text, err := os.ReadFile(filepath.Join(dir, f.Name()))
		if err != nil {
			return "", err
		}
		known := judge(string(text))
		if known == "" {
			return "", fmt.Errorf("%s is no licence that is known to be fine: read it, and add it to deploy/licence or leave the module out", f.Name())
		}
		if !slices.Contains(names, known) {
			names = append(names, known)
		}
	}
	if len(names) == 0 {
		return "", errors.New("no licence: read what it ships, or leave the module out")
	}
	if i := slices.Index(names, choice); i >= 0 && len(names) > 1 {
		names[i] = "(" + choice + ")"
	}
	return strings.Join(names, " AND "), nil
}

func judge(text string) string {
	text = strings.Join(strings.Fields(text), " ") // lines are broken differently everywhere
	has := func(s string) bool { return strings.Contains(text, s) }
	for _, l := range allowed {
		if !slices.ContainsFunc(l.sentences, func(s string) bool { return !has(s) }) && (l.name == choice || !slices.ContainsFunc(refused, has)) {
			return l.name
		}
	}
	return ""
}
