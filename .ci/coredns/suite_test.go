package test

import _ "github.com/dnstrace/dnstrace/plugin" // for everyBlock
