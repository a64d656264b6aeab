/**
 * sharp for files from elsewhere. libvips knows many formats besides JPEG, PNG, WebP, TIFF and AVIF, each of which runs
 * more code than a photograph should; `decodeImage` knows a format by its first bytes, and here those decoders are
 * switched off as well. SVG alone stays on, for the labels of a sheet are drawn by it.
 *
 * The switches are the whole process's, and every worker sets them again. So nothing is switched off, not even for a
 * moment, that another worker may be using.
 */
import sharp from "sharp";

const UNUSED =
  "Analyze Csv DcRaw Fits Jp2k Jxl Magick Magick7 Mat Matrix Nifti Nsgif Openexr Openslide Pdf Ppm Rad Raw " +
  "Uhdr Vips";

sharp.block({ operation: UNUSED.split(" ").map((format) => `VipsForeignLoad${format}`) });

// Every image is decoded once an epoch: keeping results would only hold memory.
sharp.cache(false);

export { sharp };
