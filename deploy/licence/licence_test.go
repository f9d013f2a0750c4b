package licence

import (
	"os"
	"path/filepath"
	"testing"
)

const (
	mit  = "MIT License\n\nPermission is hereby granted, free of charge, to any person obtaining a copy\nof this software and associated files, to deal without restriction"
	bsd  = "Redistribution and use in source and binary forms, with or without"
	gpl  = "                    GNU GENERAL PUBLIC LICENSE\n                       Version 3, 29 June 2007"
	agpl = "GNU AFFERO GENERAL PUBLIC\nLICENSE Version 3"
	mpl  = "Mozilla Public License Version 2.0\n1.12. \"Secondary License\" means the GNU General Public License, Version 2.0"
)

func TestOf(t *testing.T) {
	for name, tc := range map[string]struct {
		files map[string]string
		want  string // empty: refused
	}{
		"none":              {map[string]string{"README": mit}, ""},
		"empty":             {map[string]string{"LICENSE": ""}, ""},
		"MIT":               {map[string]string{"license.txt": mit}, "MIT"},
		"lines broken":      {map[string]string{"LICENCE": "Redistribution and use in source\nand binary forms, nor endorse or\npromote products"}, "BSD-3-Clause"},
		"MPL names the GPL": {map[string]string{"LICENSE": mpl}, "MPL-2.0"},
		"two that are fine": {map[string]string{"LICENSE": mit, "LICENSE.BSD": bsd}, "MIT AND BSD-2-Clause"},
		"GPL":               {map[string]string{"COPYING": gpl}, ""},
		"AGPL":              {map[string]string{"LICENSE": agpl}, ""},
		"GPL beside MIT":    {map[string]string{"LICENSE": gpl, "LICENSE.MIT": mit}, ""},
		"MIT beside GPL":    {map[string]string{"LICENSE": mit, "LICENSE.gpl": gpl}, ""},
		"both in one file":  {map[string]string{"LICENSE": mit + "\n" + gpl}, ""},
		"the one or the other": {map[string]string{"License": "/* SPDX-License-Identifier: BSD-3-Clause OR GPL-2.0-only */\n" +
			"The licensed conditions are one or the other of these two Licenses:\n" + gpl}, choice},
		"the choice, and another": {map[string]string{"LICENSE": mit, "License": "SPDX-License-Identifier: BSD-3-Clause OR GPL-2.0-only\n" +
			"The licensed conditions are one or the other of these two Licenses:\n" + gpl}, "MIT AND (" + choice + ")"},
		"a mention of another": {map[string]string{"LICENSE": "Not under the Apache License, Version 2.0"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			for file, text := range tc.files {
				if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			got, err := Of(dir)
			if got != tc.want || (err == nil) != (tc.want != "") {
				t.Errorf("got %q, %v; want %q", got, err, tc.want)
			}
		})
	}
}
