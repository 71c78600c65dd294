// Package s3 is object storage: buckets, objects and their versions,
// multipart uploads, and the settings of buckets that tools read and write.
//
// Rows: a bucket is "s3:bucket" (no account or region in its key: names are
// global). The newest version of a key, or its delete marker, is "s3:object"
// with the id BUCKET/KEY, the state Live or Marker, and the bucket as parent;
// older versions are "s3:version", ordered newest first. Uploads in progress
// are "s3:upload" and "s3:part".
//
// Bytes lie in package blob. A version names its blobs in order (one for each
// part of a multipart upload, so that completing copies nothing). How many
// versions and parts use a blob is counted in the transaction that writes
// them; a blob whose count fell to nought is removed some minutes later, when
// no download can still want it, and a full look through all blobs at start
// finds those whose upload or removal a crash interrupted.
//
// Bucket policies, ACLs, lifecycle, replication, notification and the like
// are stored and given back but have no effect yet, and nothing here decides
// who may read: every valid signature of the account may.
package s3
