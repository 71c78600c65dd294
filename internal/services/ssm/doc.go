// Package ssm is the Parameter Store of Systems Manager: parameters with
// versions, labels, tags and paths. SecureString values are sealed with the
// server's key (package keyring), bound to the parameter's name, whatever KMS
// key is named: that name is only stored. The public parameters of Amazon
// Linux AMIs stand for the default image.
//
// Rows: "ssm:parameter" is a parameter with its newest version, id NAME;
// "ssm:parameter-version" its older versions, id NAME:NUMBER. Run Command and
// the rest of Systems Manager are not built and answer 501.
package ssm
